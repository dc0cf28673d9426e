// Calculates from two readings of /proc which shares of this machine's processors a measurement and
// everything else took.

import { readFileSync } from 'node:fs'
import { allProcesses, descendants, type ProcessIdentity, type ProcessStat } from '../../tools/process.ts'

/** Clock ticks since boot, summed over all processors. */
export interface Load {
  /** Time of all processors, idle or not. */
  total: number
  /** Time that programs and the kernel's threads used. */
  busy: number
  /** Time that the hypervisor gave to other machines while this one had work. */
  stolen: number
  /** The part of `busy` that belongs to the measurement, its ended children included. */
  own: number
  /** The part of `busy` of the kernel's threads, which work for all programs. */
  kernel: number
}

/** Shares, from 0 to 1, of the time of all processors. */
export interface Taken {
  others: number
  stolen: number
}

/** The kernel's threads are the children of this process. */
const KERNEL_THREADS = 2

/**
 * The load from the text of /proc/stat and all processes. Everything below `roots` belongs to the
 * measurement. Time of interrupts counts for nobody, because the packets of limited links are
 * handled in them. Pure.
 */
export function loadOf(text: string, processes: readonly ProcessStat[], roots: readonly ProcessIdentity[]): Load {
  // Fields (see proc(5)): user nice system idle iowait irq softirq steal. User includes guest time.
  const ticks = (text.split('\n')[0] ?? '').split(/\s+/).slice(1, 9).map(Number)
  const [user = 0, nice = 0, system = 0, , , , , stolen = 0] = ticks
  const sum = (tree: readonly ProcessStat[]) => tree.reduce((total, process) => total + process.ticks, 0)
  const kernel = processes.filter(({ pid }) => pid === KERNEL_THREADS)
  return {
    total: ticks.reduce((total, value) => total + value, 0),
    busy: user + nice + system,
    stolen,
    own: sum(descendants(processes, roots)),
    kernel: sum(descendants(processes, kernel)),
  }
}

export function readLoad(roots: readonly ProcessIdentity[]): Load {
  return loadOf(readFileSync('/proc/stat', 'utf8'), allProcesses(), roots)
}

/** The shares that others and the hypervisor took between two readings. */
export function takenBetween(before: Load, after: Load): Taken {
  const since = (value: (load: Load) => number) => value(after) - value(before)
  const total = since(load => load.total)
  if (total <= 0) return { others: 0, stolen: 0 }
  const others = since(load => load.busy - load.own - load.kernel)
  return { others: Math.max(0, others / total), stolen: Math.max(0, since(load => load.stolen) / total) }
}

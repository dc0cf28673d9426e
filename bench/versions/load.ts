// Measures how busy the machine was with processes other than this one and its children.

import { readFileSync } from 'node:fs'

export interface Load {
  /** Ticks in which processors were not idle, including those that the hypervisor took. */
  busy: number
  /** Ticks of all processors. */
  total: number
  /** Ticks of this process and of its children that have ended. */
  own: number
}

export function readLoad(): Load {
  const line = readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? ''
  // Fields (see proc(5)): user nice system idle iowait irq softirq steal. User includes guest time.
  const ticks = line.split(/\s+/).slice(1, 9).map(Number)
  const total = ticks.reduce((sum, value) => sum + value, 0)
  const idle = (ticks[3] ?? 0) + (ticks[4] ?? 0)
  const stat = readFileSync('/proc/self/stat', 'utf8')
  const own = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15)
    .reduce((sum, value) => sum + Number(value), 0)
  return { busy: total - idle, total, own }
}

/** The share, from 0 to 1, of processor time between two readings that other processes took. */
export function disturbance(before: Load, after: Load): number {
  const total = after.total - before.total
  const others = after.busy - before.busy - (after.own - before.own)
  return total === 0 ? 0 : Math.max(0, others / total)
}

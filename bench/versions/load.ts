// How busy the machine was with work that is not this process's or its children's.

import { readFileSync } from 'node:fs'

export interface Load {
  /** Ticks that all processors spent on anything but idling; the hypervisor's steal included. */
  busy: number
  /** Ticks of all processors. */
  total: number
  /** Ticks of this process and of its children that have ended. */
  own: number
}

export function readLoad(): Load {
  const line = readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? ''
  // The fields of proc(5): user nice system idle iowait irq softirq steal; guest time is part of user.
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

/** The share, from 0 to 1, of the processors' time between two readings that went to others. */
export function disturbance(before: Load, after: Load): number {
  const total = after.total - before.total
  const others = after.busy - before.busy - (after.own - before.own)
  return total === 0 ? 0 : Math.max(0, others / total)
}

// What a schedule is predicted to take: both queues first in, first out, with waits between them.

import type { Emitted, Scheduled } from '../program/program.ts'
import type { Spans, Times } from './types.ts'

export interface Machine {
  flopsPerSecond: number
  bytesPerSecond: number
  /** Of one collective, whatever its size. */
  latencySeconds: number
}

/** Time no op is shorter than: starting it. */
const OVERHEAD_MICROSECONDS = 1

/** First guess from the cost of each op. Communication inside a rank alone costs its copy only, which the guess leaves out. */
export function estimateTimes(emitted: Emitted, machine: Machine): Times {
  return Float64Array.from(emitted.ops, ({ queue, cost }) => {
    if (queue === 'compute') return OVERHEAD_MICROSECONDS + (cost / machine.flopsPerSecond) * 1e6
    const latency = cost > 0 ? machine.latencySeconds * 1e6 : 0
    return OVERHEAD_MICROSECONDS + latency + (cost / machine.bytesPerSecond) * 1e6
  })
}

/** Start and end of every scheduled op in microseconds, and the end of the last. `times` in emitted order. */
export function makespan(scheduled: Scheduled, emitted: Emitted, times: Times): Spans & { total: number } {
  const { ops } = scheduled
  const duration = new Map(emitted.ops.map((op, index) => [op.label, times[index] ?? 0]))
  const start = new Float64Array(ops.length)
  const end = new Float64Array(ops.length)
  const free = { compute: 0, comm: 0 }
  for (const [index, op] of ops.entries()) {
    const begin = Math.max(free[op.queue], ...op.waits.map(wait => end[wait] ?? 0))
    start[index] = begin
    end[index] = begin + (duration.get(op.label) ?? 0)
    free[op.queue] = end[index] ?? 0
  }
  return { start, end, total: Math.max(free.compute, free.comm) }
}

/** Durations of a measured run by emitted op, so that runs under different schedules can be compared. */
export function durations(emitted: Emitted, scheduled: Scheduled, spans: Spans): Times {
  const measured = new Map(
    scheduled.ops.map(({ label }, index) => [label, (spans.end[index] ?? 0) - (spans.start[index] ?? 0)]),
  )
  return Float64Array.from(emitted.ops, ({ label }) => measured.get(label) ?? 0)
}

/** Least time by which an all-to-all ended before compute came to need it; negative where compute stood still. Infinity: none is waited for. */
export function minimumSlack(scheduled: Scheduled, { end }: Spans): number {
  let least = Number.POSITIVE_INFINITY
  let previous = 0
  for (const [index, op] of scheduled.ops.entries()) {
    if (op.queue !== 'compute') continue
    for (const wait of op.waits)
      if (scheduled.ops[wait]?.op === 'all_to_all') least = Math.min(least, previous - (end[wait] ?? 0))
    previous = end[index] ?? 0
  }
  return least
}

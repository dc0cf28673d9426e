// Predicts how long a schedule takes on all ranks together.

import type { Emitted, Queue, Scheduled } from '../program/program.ts'
import type { Split } from './chunks.ts'
import { courseOf, simulate } from './simulate.ts'
import type { Profile, Spans, Times } from './types.ts'

export interface Machine {
  flopsPerSecond: number
  bytesPerSecond: number
  /** Latency of one collective of any size. */
  latencySeconds: number
}

/** Time to start an op; no op is shorter. */
const OVERHEAD_MICROSECONDS = 1

/**
 * A first guess from the cost of each op. The guess leaves out the copy that communication within a
 * single rank makes.
 */
function estimateTimes(emitted: Emitted, machine: Machine): Times {
  return Float64Array.from(emitted.ops, ({ queue, cost }) => {
    if (queue === 'compute') return OVERHEAD_MICROSECONDS + (cost / machine.flopsPerSecond) * 1e6
    const latency = cost > 0 ? machine.latencySeconds * 1e6 : 0
    return OVERHEAD_MICROSECONDS + latency + (cost / machine.bytesPerSecond) * 1e6
  })
}

/**
 * A guessed profile, in which one rank stands for all and communication takes nothing from compute.
 */
export function estimate(emitted: Emitted, machine: Machine): Profile {
  return { times: [estimateTimes(emitted, machine)], contention: 0, latency: machine.latencySeconds * 1e6 }
}

/**
 * Microseconds that one of `chunks` chunks takes beyond its share, because each chunk is started by
 * itself and, in a collective, has its own latency.
 */
export const extraOf = (queue: Queue, chunks: number, latency: number) =>
  ((OVERHEAD_MICROSECONDS + (queue === 'comm' ? latency : 0)) * (chunks - 1)) / chunks

/** Times of the ops of a split program, for each rank. */
export function splitTimes({ ops, source }: Split, { times, latency }: Profile): Times[] {
  return times.map(rank =>
    Float64Array.from(ops, (op, index) => {
      const chunks = Number(op.attrs['chunks'] ?? 1)
      return (rank[source[index] ?? -1] ?? 0) / chunks + extraOf(op.queue, chunks, latency)
    }),
  )
}

/**
 * The predicted spans of `rank`, and the microseconds until the last rank is done. `profile` is in
 * emitted order; if it has a single rank, that one stands for all.
 */
export function makespan(
  scheduled: Scheduled,
  emitted: Emitted,
  profile: Profile,
  rank = 0,
): Spans & { total: number } {
  const { ops } = scheduled
  const own = Math.min(rank, profile.times.length - 1)
  const start = new Float64Array(ops.length)
  const end = new Float64Array(ops.length)
  const ready = new Float64Array(ops.length)
  const queues = queuesOf(scheduled)
  const costs = {
    ops,
    times: splitTimes({ ops, source: sources(scheduled, emitted) }, profile),
    contention: profile.contention,
  }
  const all = courseOf(costs, queues, [...queues.compute.keys(), queues.compute.length])
  const { total } = simulate(all, queues.comm, {
    travelled(op, at, span) {
      if (at !== own) return
      start[op] = span.start
      ready[op] = span.ready
      end[op] = span.end
    },
    stopped(position, at, span) {
      if (at !== own) return
      const [previous, next] = [queues.compute[position - 1], queues.compute[position]]
      if (previous !== undefined) end[previous] = span.reached
      if (next === undefined) return
      start[next] = span.started
      ready[next] = span.started
    },
  })
  return { start, end, ready, total }
}

/** For each scheduled op, the index of the emitted op that it is, or of which it is a chunk. */
export function sources({ ops }: Scheduled, emitted: Emitted): number[] {
  const indices = new Map(emitted.ops.map(({ label }, index) => [label, index]))
  return ops.map(({ label, attrs }) => {
    const { chunk = 0, chunks = 1 } = attrs
    const index = indices.get(chunks === 1 ? label : label.slice(0, -`.${chunk}of${chunks}`.length))
    if (index === undefined) throw new Error(`${label} is no op of program ${emitted.name}, whose times were given`)
    return index
  })
}

/** The queues of a schedule, as indices of its ops. */
function queuesOf({ ops }: Scheduled) {
  const compute: number[] = []
  const comm: number[] = []
  const computeNeeded = new Int32Array(ops.length).fill(-1)
  const positions = new Int32Array(ops.length)
  const commNeeded: number[][] = ops.map(() => [])
  for (const [index, { queue, waits }] of ops.entries()) {
    positions[index] = queue === 'compute' ? compute.push(index) - 1 : -1
    if (queue === 'comm') comm.push(index)
    if (queue === 'comm') computeNeeded[index] = Math.max(-1, ...waits.map(wait => positions[wait] ?? -1))
    else commNeeded[index] = [...waits]
  }
  return { compute, comm, computeNeeded, commNeeded }
}

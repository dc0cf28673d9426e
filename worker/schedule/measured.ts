// Turns the spans of a run into what predictions start from. The skew of the ranks and the slowdown
// by communication are taken out.

import { median } from '../median.ts'
import { collectiveOf } from '../program/effects.ts'
import type { Emitted, Op, Scheduled } from '../program/program.ts'
import { type Interval, sweep } from './intervals.ts'
import { extraOf, sources } from './makespan.ts'
import type { Profile, Spans, Times } from './types.ts'

/** Ranks that share the processors of a machine. */
export interface Processors {
  /** Threads of one rank that compute. One more thread of the rank communicates. */
  computeThreads: number
  processors: number
  ranks: number
}
/**
 * The hardware that ranks share. On a device, a rank's communication takes multiprocessors and
 * memory bandwidth only from its own compute.
 */
export type Sharing = Processors | 'device'

/**
 * The share of its speed that compute loses while communication of its rank transfers data, 0 to 1.
 */
export function contentionOf(scheduled: Scheduled, spans: Spans, sharing: Sharing): number {
  return sharing === 'device' ? slowdownOf(scheduled, spans) : processorsTaken(scheduled, spans, sharing)
}

/**
 * Processor time of communication for each microsecond of transfer, times the share of
 * communication threads that have no processor of their own.
 */
function processorsTaken(
  scheduled: Scheduled,
  spans: Spans,
  { computeThreads, processors, ranks }: Processors,
): number {
  const crowded = Math.min(Math.max(ranks * (computeThreads + 1) - processors, 0), ranks) / ranks
  let [cpu, wall] = [0, 0]
  for (const { start, end } of transfers(scheduled, spans)) wall += end - start
  for (const [index, op] of scheduled.ops.entries()) if (op.queue === 'comm') cpu += spans.cpu?.[index] ?? 0
  return wall > 0 ? Math.min(crowded * (cpu / wall), 1) : 0
}

/** An estimate counts only if it is this many standard errors above 0. */
const CERTAIN = 2

/**
 * How much longer an op gets for each microsecond that it shares with transfers. The model is took
 * = w + slope * shared, with one w for all ops of the same work; the result is the least-squares
 * slope. It is 0 if ops of the same work did not share different times, or if chance explains the
 * differences.
 */
function slowdownOf(scheduled: Scheduled, spans: Spans): number {
  const shared = besideTransfers(scheduled, spans)
  const comparable = scheduled.ops.flatMap((op, index) =>
    op.queue === 'compute' && !isRouted(op)
      ? [{ work: workOf(op), took: lengthOf(spans, index), beside: shared[index] ?? 0 }]
      : [],
  )
  const kinds = [...Map.groupBy(comparable, ({ work }) => work).values()]
  const points = kinds.flatMap(list => {
    const [took, beside] = [mean(list.map(each => each.took)), mean(list.map(each => each.beside))]
    return list.map(each => ({ took: each.took - took, beside: each.beside - beside }))
  })
  const sum = (value: (point: (typeof points)[number]) => number) => points.reduce((all, each) => all + value(each), 0)
  const variance = sum(({ beside }) => beside ** 2)
  const free = points.length - kinds.length - 1
  if (variance === 0 || free <= 0) return 0
  const slope = sum(({ took, beside }) => took * beside) / variance
  const error = Math.sqrt(sum(({ took, beside }) => (took - slope * beside) ** 2) / free / variance)
  return slope > CERTAIN * error ? Math.min(slope, 1) : 0
}

const workOf = ({ op, attrs, cost, inputs, outputs }: Op) =>
  JSON.stringify([op, attrs, cost, inputs.length, outputs.length])
/** Whether the number of rows, and so the work, is not known here. */
const isRouted = ({ attrs }: Op) => attrs['experts'] !== undefined
const lengthOf = ({ start, end }: Spans, op: number) => (end[op] ?? 0) - (start[op] ?? 0)
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

/** For each compute op, the microseconds in which data travelled; 0 for a collective. */
function besideTransfers(scheduled: Scheduled, spans: Spans): Float64Array {
  const travelling = sweep(transfers(scheduled, spans))
  const shared = new Float64Array(scheduled.ops.length)
  for (const [index, { queue }] of scheduled.ops.entries()) {
    if (queue === 'comm') continue
    travelling({ start: spans.start[index] ?? 0, end: spans.end[index] ?? 0 }, (_, time) => {
      shared[index] = (shared[index] ?? 0) + time
    })
  }
  return shared
}

/**
 * The microseconds that each emitted op took by itself, so that runs under different schedules can
 * be compared: for a collective its transfer, from the arrival of the last member; for a compute op
 * its time less what communication took from it. The times of chunks are added up.
 */
export function durations(
  emitted: Emitted,
  scheduled: Scheduled,
  spans: Spans,
  { contention, latency }: Pick<Profile, 'contention' | 'latency'> = { contention: 0, latency: 0 },
): Times {
  const result = new Float64Array(emitted.ops.length)
  const shared = besideTransfers(scheduled, spans)
  const source = sources(scheduled, emitted)
  for (const [index, { queue, attrs }] of scheduled.ops.entries()) {
    const [start, end] = [spans.start[index] ?? 0, spans.end[index] ?? 0]
    let time = -extraOf(queue, Number(attrs['chunks'] ?? 1), latency)
    if (queue === 'comm') time += end - Math.max(start, spans.ready?.[index] ?? start)
    else time += end - start - contention * (shared[index] ?? 0)
    const emittedOp = source[index] ?? 0
    result[emittedOp] = (result[emittedOp] ?? 0) + time
  }
  return result.map(time => Math.max(time, 0))
}

/**
 * The latency of a collective in microseconds: the median time of the smallest ones, which gather
 * counts, after all ranks have come; 0 if there are none.
 */
export function latencyOf({ ops }: Scheduled, { start, end, ready }: Spans): number {
  const counts = ops.flatMap((op, i) =>
    collectiveOf(op) === 'gather' ? [(end[i] ?? 0) - Math.max(start[i] ?? 0, ready?.[i] ?? 0)] : [],
  )
  return counts.length === 0 ? 0 : median(counts)
}

/** The stretches in which data travelled, in ascending order. */
function transfers({ ops }: Scheduled, { start, end, ready }: Spans): Interval[] {
  return ops.flatMap(({ queue }, index) => {
    const begin = start[index] ?? 0
    return queue === 'comm' ? [{ start: Math.max(begin, ready?.[index] ?? begin), end: end[index] ?? 0 }] : []
  })
}

// From what a run measured to what the predictor works from: the ranks' skew and the slowdown by communication taken out.

import { collectiveOf } from '../program/effects.ts'
import type { Emitted, Op, Scheduled } from '../program/program.ts'
import { extraOf, sources } from './makespan.ts'
import type { Profile, Spans, Times } from './types.ts'

/** Ranks on processors. */
export interface Processors {
  /** Of one rank; one more communicates. */
  computeThreads: number
  /** That `ranks` ranks share. */
  processors: number
  ranks: number
}
/** Where the ranks ran. On a device of its own, a rank's communication takes multiprocessors and memory bandwidth from its own compute. */
export type Sharing = Processors | 'device'

/** Share of its speed that compute loses while its rank's communication transfers, 0 to 1. */
export function contentionOf(scheduled: Scheduled, spans: Spans, sharing: Sharing): number {
  return sharing === 'device' ? slowdownOf(scheduled, spans) : processorsTaken(scheduled, spans, sharing)
}

/** Processor time per time of transfer, for as many of the communication threads as find no processor of their own. */
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

/** How many standard errors an estimate is from 0 before it counts. */
const CERTAIN = 2

/**
 * How much longer an op is for the time it shares with transfers: among ops of the same work, the least-squares slope of what they took
 * (w + slope * shared, w for each work) over what they shared. 0 where none shared differently from others, or no more differently than chance explains.
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
/** How many rows it had is not known here. */
const isRouted = ({ attrs }: Op) => attrs['experts'] !== undefined
const lengthOf = ({ start, end }: Spans, op: number) => (end[op] ?? 0) - (start[op] ?? 0)
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

/** By op, of compute: microseconds of it in which data travelled. */
function besideTransfers(scheduled: Scheduled, spans: Spans): Float64Array {
  const travelling = transfers(scheduled, spans)
  const shared = new Float64Array(scheduled.ops.length)
  let next = 0
  for (const [index, { queue }] of scheduled.ops.entries()) {
    if (queue === 'comm') continue
    const span = { start: spans.start[index] ?? 0, end: spans.end[index] ?? 0 }
    while ((travelling[next]?.end ?? Number.POSITIVE_INFINITY) <= span.start) next++
    let sum = 0
    for (let at = next; (travelling[at]?.start ?? Number.POSITIVE_INFINITY) < span.end; at++)
      sum += common(span, travelling[at])
    shared[index] = sum
  }
  return shared
}

/**
 * What each emitted op took by itself, microseconds: of a collective the transfer, from the last member's arrival; of compute the time less what
 * communication took from it meanwhile. Chunks are put together again. So runs under different schedules can be compared.
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

/** What the smallest collective takes once all ranks are there, that of the counts: the median; 0 where there is none. */
export function latencyOf({ ops }: Scheduled, { start, end, ready }: Spans): number {
  const counts = ops.flatMap((op, i) =>
    collectiveOf(op) === 'gather' ? [(end[i] ?? 0) - Math.max(start[i] ?? 0, ready?.[i] ?? 0)] : [],
  )
  return counts.toSorted((a, b) => a - b)[counts.length >> 1] ?? 0
}

interface Interval {
  start: number
  end: number
}

export const common = (a: Interval, b: Interval | undefined) =>
  b === undefined ? 0 : Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start))

/** When data travelled, in order. */
function transfers({ ops }: Scheduled, { start, end, ready }: Spans): Interval[] {
  return ops.flatMap(({ queue }, index) => {
    const begin = start[index] ?? 0
    return queue === 'comm' ? [{ start: Math.max(begin, ready?.[index] ?? begin), end: end[index] ?? 0 }] : []
  })
}

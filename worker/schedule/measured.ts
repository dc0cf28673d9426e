// From what a run measured to what the predictor works from: the ranks' skew and the slowdown by communication taken out.

import type { Emitted, Scheduled } from '../program/program.ts'
import { extraOf, sources } from './makespan.ts'
import type { Profile, Spans, Times } from './types.ts'

/** Where the ranks ran. */
export interface Sharing {
  /** Of one rank; one more communicates. */
  computeThreads: number
  /** That `ranks` ranks share. */
  processors: number
  ranks: number
}

/**
 * Share of a processor that communication takes from compute while it transfers, 0 to 1: processor time per time of transfer, for as many of the
 * communication threads as find no processor of their own.
 */
export function contentionOf(
  scheduled: Scheduled,
  spans: Spans,
  { computeThreads, processors, ranks }: Sharing,
): number {
  const crowded = Math.min(Math.max(ranks * (computeThreads + 1) - processors, 0), ranks) / ranks
  let [cpu, wall] = [0, 0]
  for (const { start, end } of transfers(scheduled, spans)) wall += end - start
  for (const [index, op] of scheduled.ops.entries()) if (op.queue === 'comm') cpu += spans.cpu?.[index] ?? 0
  return wall > 0 ? Math.min(crowded * (cpu / wall), 1) : 0
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
  const travelling = transfers(scheduled, spans)
  const source = sources(scheduled, emitted)
  let next = 0
  for (const [index, { queue, attrs }] of scheduled.ops.entries()) {
    const span = { start: spans.start[index] ?? 0, end: spans.end[index] ?? 0 }
    let time = -extraOf(queue, Number(attrs['chunks'] ?? 1), latency)
    if (queue === 'comm') {
      time += span.end - Math.max(span.start, spans.ready?.[index] ?? span.start)
    } else {
      while ((travelling[next]?.end ?? Number.POSITIVE_INFINITY) <= span.start) next++
      let shared = 0
      for (let at = next; (travelling[at]?.start ?? Number.POSITIVE_INFINITY) < span.end; at++)
        shared += common(span, travelling[at])
      time += span.end - span.start - contention * shared
    }
    const emittedOp = source[index] ?? 0
    result[emittedOp] = (result[emittedOp] ?? 0) + time
  }
  return result.map(time => Math.max(time, 0))
}

/** What the smallest collective takes once all ranks are there, that of the counts: the median; 0 where there is none. */
export function latencyOf({ ops }: Scheduled, { start, end, ready }: Spans): number {
  const counts = ops.flatMap(({ op }, i) =>
    op === 'all_gather_counts' ? [(end[i] ?? 0) - Math.max(start[i] ?? 0, ready?.[i] ?? 0)] : [],
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

// Times of the ops of a program from runs on all ranks, as a worker takes them (worker/profile.ts), and what that profile predicts. Pure.

import type { Emitted, Scheduled } from '../../worker/program/program.ts'
import { median } from '../../worker/record.ts'
import { contentionOf, durations, type Profile, type Sharing, type Spans } from '../../worker/schedule/schedule.ts'

/** `runs`: by rank. */
export function profileFrom(
  emitted: Emitted,
  scheduled: Scheduled,
  runs: readonly (readonly Spans[])[],
  sharing: Sharing,
): Profile {
  const mean = (value: (spans: Spans) => number) =>
    runs.reduce((sum, samples) => sum + median(samples.map(value)), 0) / runs.length
  const common = {
    contention: mean(spans => contentionOf(scheduled, spans, sharing)),
    latency: mean(spans => latencyOf(scheduled, spans)),
  }
  const times = runs.map(samples => {
    const all = samples.map(spans => durations(emitted, scheduled, spans, common))
    return Float64Array.from(emitted.ops, (_, op) => median(all.map(one => one[op] ?? 0)))
  })
  return { times, ...common }
}

/** What the smallest collective takes once all ranks are there: that of the counts. */
function latencyOf({ ops }: Scheduled, { start, end, ready }: Spans): number {
  const counts = ops.flatMap(({ op }, i) =>
    op === 'all_gather_counts' ? [(end[i] ?? 0) - Math.max(start[i] ?? 0, ready?.[i] ?? 0)] : [],
  )
  return counts.length > 0 ? median(counts) : 0
}

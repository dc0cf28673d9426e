// Measures the times of a program's ops on all ranks, as a worker does (worker/train/programs.ts).

import { availableParallelism } from 'node:os'
import { median } from '../../worker/median.ts'
import type { Emitted, Scheduled } from '../../worker/program/program.ts'
import {
  choose,
  contentionOf,
  durations,
  estimate,
  latencyOf,
  type Profile,
  type Sharing,
  type Spans,
} from '../../worker/schedule/schedule.ts'
import type { Loaded, Model } from './model.ts'

const RUNS = 3
/** Bits per second of a link without a limit. */
const FAST = 1e10

/** The profile that a worker guesses before it has measured; `rate` is in bits per second. */
export const guessOf = (emitted: Emitted, rate = FAST): Profile =>
  estimate(emitted, { flopsPerSecond: 1e11, bytesPerSecond: rate / 8, latencySeconds: 1e-4 })

/**
 * Times under the schedule that the guess prefers, as a worker has them when it chooses. `warmUp`
 * runs that schedule the first time.
 */
export async function profile(
  model: Model,
  program: string,
  rate: number | undefined,
  warmUp: (loaded: Loaded) => Promise<unknown>,
): Promise<Profile> {
  const emitted = model.emitted(program)
  const loaded = await model.load('profile', choose(emitted, guessOf(emitted, rate), { strategy: 'Auto' }).choice)
  await warmUp(loaded)
  const { results } = await model.run(
    loaded,
    Array.from({ length: RUNS }, () => program),
  )
  const scheduled = loaded.scheduled.get(program)
  if (!scheduled) throw new Error(`${program} is not loaded`)
  const sharing: Sharing = { computeThreads: 1, ranks: results.length, processors: availableParallelism() }
  return profileFrom(
    emitted,
    scheduled,
    results.map(({ runs }) => runs),
    sharing,
  )
}

/** `runs` are by rank. */
function profileFrom(
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

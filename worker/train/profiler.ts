// Measures steps, and makes of them the profile that schedules are chosen from.

import { median } from '../median.ts'
import type { Emitted, Scheduled } from '../program/program.ts'
import { gathered, type Reduce, together } from '../ranks/together.ts'
import { contentionOf, durations, latencyOf, type Profile, type Sharing, type Spans } from '../schedule/schedule.ts'

/** Steps before the first measured ones; caches and branch predictors warm up in them. */
const WARM_UP = 2
const MEASURED = 5

export interface ProfilerOptions {
  reduce: Reduce
  rank: number
  worldSize: number
  /** The program that is measured. */
  emitted: Emitted
  sharing: Sharing
}

/** One run of the measured program. */
export interface ProfiledRun {
  scheduled: Scheduled
  spans: Spans
}

/** All ranks make the same calls after the same steps. */
export class Profiler {
  readonly #options: ProfilerOptions
  /** Steps until enough has been measured; negative when nothing is to be measured. */
  #left = WARM_UP + MEASURED
  #samples: ProfiledRun[] = []

  constructor(options: ProfilerOptions) {
    this.#options = options
  }

  /** Whether steps are being measured. */
  get measuring(): boolean {
    return this.#left > 0
  }

  /** Whether enough steps have been measured for a profile; the same on every rank. */
  get due(): boolean {
    return this.#left === 0
  }

  /** Starts to measure anew. */
  again(): void {
    this.#left = MEASURED
    this.#samples = []
  }

  /** Takes the run of a step. The schedule must be the same in all measured steps. */
  observe(run: ProfiledRun): void {
    if (this.#left <= 0) return
    this.#left--
    if (this.#left < MEASURED) this.#samples.push(run)
  }

  /** The medians of every rank over the measured steps, the same on all ranks; collective. */
  async profile(): Promise<Profile> {
    const { reduce, rank, worldSize, emitted, sharing } = this.#options
    const samples = this.#samples
    this.#left = -1
    this.#samples = []
    const sums = await together(reduce, {
      contention: median(samples.map(({ scheduled, spans }) => contentionOf(scheduled, spans, sharing))),
      latency: median(samples.map(({ scheduled, spans }) => latencyOf(scheduled, spans))),
    })
    const common = { contention: sums.contention / worldSize, latency: sums.latency / worldSize }
    const runs = samples.map(({ scheduled, spans }) => durations(emitted, scheduled, spans, common))
    const own = Float64Array.from(emitted.ops, (_, op) => median(runs.map(times => times[op] ?? 0)))
    return { times: await gathered(reduce, { rank, worldSize }, own), ...common }
  }
}

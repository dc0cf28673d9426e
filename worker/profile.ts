// The programs of a job and their schedule: chosen by estimate first, then by what the first steps measured on all ranks.

import type { Engine, RunTimes } from './engine.ts'
import type { ModelConfig } from './model.ts'
import { emitEvaluate, emitTrain } from './program/emit.ts'
import type { Scheduled } from './program/program.ts'
import { median } from './record.ts'
import {
  assemble,
  type Candidate,
  choose,
  describe,
  durations,
  estimateTimes,
  type Machine,
  type Overlap,
  overlap,
  type Strategy,
  schedule,
  type Times,
} from './schedule/schedule.ts'

/** Steps that warm up caches and branch predictors before the profiled ones. */
const WARM_UP = 2
const PROFILED = 5

/** A core of a small server beside its neighbour: good enough to pick a schedule for the few steps that are measured. */
const GUESS: Machine = { flopsPerSecond: 5e10, bytesPerSecond: 1e9, latencySeconds: 5e-5 }

export interface PlanOptions {
  engine: Engine
  model: ModelConfig
  rank: number
  strategy: Strategy
  slot: number | undefined
}

export interface Replanned {
  schedule: string
  /** Every schedule that was weighed, predicted milliseconds. */
  candidates: { schedule: string; predicted: number }[]
  predictedMilliseconds: number
  /** The same with every all-to-all waited for. */
  sequentialMilliseconds: number | undefined
}

/** Both programs on one rank. All ranks make the same calls at the same steps, with the same times, and so load the same order of collectives. */
export class Plan {
  readonly #options: PlanOptions
  readonly #emitted
  readonly #evaluate
  #candidate: Candidate
  #observed = 0
  #samples: Times[] = []

  constructor(options: PlanOptions) {
    this.#options = options
    this.#emitted = emitTrain(options.model, options.rank)
    this.#evaluate = emitEvaluate(options.model, options.rank)
    this.#candidate = choose(this.#emitted, estimateTimes(this.#emitted, GUESS), options.strategy, options.slot)
  }

  /** Uploads both programs as scheduled now. */
  load(): void {
    const { engine, model, rank } = this.#options
    engine.load(assemble(this.#candidate.scheduled, model, rank))
    engine.load(assemble(schedule(this.#evaluate, this.#candidate.choice), model, rank))
  }

  get description(): string {
    return describe(this.#candidate.choice)
  }

  get scheduled(): Scheduled {
    return this.#candidate.scheduled
  }

  overlap(times: RunTimes): Overlap {
    return overlap(this.#candidate.scheduled, times)
  }

  /** Takes in a measured step; true when enough have been taken in for `replan`. */
  observe(times: RunTimes): boolean {
    this.#observed++
    if (this.#observed <= WARM_UP || this.#observed > WARM_UP + PROFILED) return false
    this.#samples.push(durations(this.#emitted, this.#candidate.scheduled, times))
    return this.#samples.length === PROFILED
  }

  /** Averages the medians over all ranks and loads the schedule they make best; collective. */
  async replan(): Promise<Replanned> {
    const { engine, model, strategy, slot } = this.#options
    const own = Float64Array.from(this.#emitted.ops, (_, op) => median(this.#samples.map(times => times[op] ?? 0)))
    this.#samples = []
    const total = await engine.allReduce(own)
    const times = total.map(time => time / model.worldSize)
    const { candidates, ...best } = choose(this.#emitted, times, strategy, slot)
    const sequential = candidates.find(({ choice }) => choice.strategy === 'Sequential')
    this.#candidate = best
    this.load()
    return {
      schedule: this.description,
      candidates: candidates.map(({ choice, predicted }) => ({
        schedule: describe(choice),
        predicted: predicted / 1000,
      })),
      predictedMilliseconds: best.predicted / 1000,
      sequentialMilliseconds: sequential && sequential.predicted / 1000,
    }
  }
}

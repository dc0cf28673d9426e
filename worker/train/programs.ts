// The programs of a job on one rank, as they are scheduled and loaded now: by an estimate at first,
// then as `choose` finds best for a measured profile.

import { emitEvaluate, emitMicroBatch, emitTrain } from '../emit/emit.ts'
import type { Engine, RunTimes } from '../engine.ts'
import type { ModelConfig } from '../model/config.ts'
import type { Emitted, Scheduled } from '../program/program.ts'
import type { TracedRun } from '../report/trace.ts'
import {
  assemble,
  type Candidate,
  choose,
  contenders,
  describe,
  estimate,
  type Machine,
  makespan,
  type Overlap,
  overlap,
  overlapOfAll,
  type Profile,
  schedule,
  type Times,
  type Wish,
} from '../schedule/schedule.ts'
import type { ProfiledRun } from './profiler.ts'

/** A core of a small server beside another one: good enough for the few steps that are measured. */
const GUESS: Machine = { flopsPerSecond: 5e10, bytesPerSecond: 1e9, latencySeconds: 5e-5 }

export interface ProgramsOptions {
  engine: Engine
  model: ModelConfig
  rank: number
  wish: Wish
  /** Called with the memory that the programs need, before any of it is taken. */
  needs?: (memory: NeededMemory) => void
}

export interface NeededMemory {
  /** Memory of parameters, gradients and moments. */
  persistentBytes: number
  /** Memory of buffers that live within a step. */
  transientBytes: number
}

/** The schedules that `choose` found; times are milliseconds of an optimizer step. */
export interface Choices {
  /** Every schedule that was weighed. */
  candidates: Predicted[]
  /** The schedules that `use` knows. The first has the best prediction and is loaded. */
  contenders: Predicted[]
  /** Predicted if every all-to-all is waited for. Undefined if the job excludes such a schedule. */
  sequentialMilliseconds: number | undefined
  /** The profile that the predictions are from, for `scmoe plan --results`. */
  measured: { labels: string[]; times: number[][]; contention: number; latency: number }
}

export interface Predicted {
  schedule: string
  predicted: number
}

/** One optimizer step as it ran; times in microseconds. */
export interface StepRun {
  runs: TracedRun[]
  /** Engine time of all its programs together. */
  total: number
  overlap: Overlap
  /** The run of `train`, the program that ends the step. */
  last: ProfiledRun
}

/**
 * All ranks make the same calls after the same steps, with the same profile. So all of them load
 * the same order of collectives.
 */
export class Programs {
  /** The program that ends a step: the last micro-batch, sums of gradients and the update. */
  readonly train: Emitted
  readonly #options: ProgramsOptions
  /** The programs of the other micro-batches, in the order of a step. */
  readonly #micro: Emitted[]
  readonly #evaluate: Emitted
  readonly #loaded = new Map<string, Scheduled>()
  #candidate: Candidate
  #contenders: Candidate[] = []
  #profile: Profile | undefined

  constructor(options: ProgramsOptions) {
    const { model, rank, wish } = options
    this.#options = options
    this.train = emitTrain(model, rank)
    this.#evaluate = emitEvaluate(model, rank)
    const others = Math.min(model.microBatches - 1, 2)
    this.#micro = [true, false].slice(0, others).map(first => emitMicroBatch(model, rank, first))
    this.#candidate = choose(this.train, estimate(this.train, GUESS), wish)
  }

  /** Loads all programs as scheduled now. */
  load(profile?: Profile): void {
    const { engine, model, rank, needs } = this.#options
    const programs = [this.train, ...this.#micro, this.#evaluate].map(emitted => {
      const own = profile && this.#profileOf(emitted, profile)
      const scheduled =
        emitted === this.train ? this.#candidate.scheduled : schedule(emitted, this.#candidate.choice, own)
      this.#loaded.set(emitted.name, scheduled)
      return assemble(scheduled, model, rank)
    })
    if (profile === undefined)
      needs?.({
        persistentBytes: Math.max(...programs.map(({ persistentBytes }) => persistentBytes)),
        transientBytes: Math.max(...programs.map(({ transientBytes }) => transientBytes)),
      })
    for (const program of programs) engine.load(program)
  }

  /** The schedule that is loaded, e.g. `shortcut K=3, backward K=2, 1 chunk`. */
  get description(): string {
    return describe(this.#candidate.choice)
  }

  /** Runs one optimizer step; `feed` writes the tokens of a micro-batch. */
  async step(feed: (microBatch: number) => void): Promise<StepRun> {
    const { engine, model } = this.#options
    const runs: TracedRun[] = []
    const overlaps: Overlap[] = []
    const started = performance.now()
    let total = 0
    for (let micro = 0; ; micro++) {
      feed(micro)
      const name = this.#nameOf(micro)
      const offset = 1000 * (performance.now() - started)
      const spans = await engine.run(name)
      const scheduled = this.#scheduled(name)
      runs.push({ ops: scheduled.ops, spans, offset })
      overlaps.push(overlap(scheduled, spans))
      total += endOf(spans)
      if (micro === model.microBatches - 1)
        return { runs, total, overlap: overlapOfAll(overlaps), last: { scheduled, spans } }
    }
  }

  /** Finds the schedules with the shortest predicted step and loads the best of them. */
  choose(profile: Profile): Choices {
    const { wish } = this.#options
    // A step is mostly micro-batches without sums of gradients. The last one has the same slots.
    const main = this.#micro.at(-1) ?? this.train
    const { candidates } = choose(main, this.#profileOf(main, profile), wish)
    this.#profile = profile
    this.#contenders = contenders(candidates).map(({ choice, predicted, slack }) => {
      return { choice, predicted, slack, scheduled: schedule(this.train, choice, profile) }
    })
    this.use(0)
    const rest = this.#lastProgram(this.#candidate.scheduled, profile)
    const milliseconds = (time: number, last: number) => (time * this.#timesMain + last) / 1000
    const sequential = candidates.find(each => each.choice.strategy === 'Sequential')
    return {
      candidates: candidates.map(({ choice, predicted }) => {
        return { schedule: describe(choice), predicted: milliseconds(predicted, rest) }
      }),
      contenders: this.#contenders.map(({ choice, predicted, scheduled }) => {
        const last = this.#lastProgram(scheduled, profile)
        return { schedule: describe(choice), predicted: milliseconds(predicted, last) }
      }),
      sequentialMilliseconds: sequential && milliseconds(sequential.predicted, rest),
      measured: {
        labels: this.train.ops.map(({ label }) => label),
        times: profile.times.map(times => [...times]),
        contention: profile.contention,
        latency: profile.latency,
      },
    }
  }

  /** Loads one of the contenders of the last `choose`, by index. */
  use(contender: number): void {
    const candidate = this.#contenders[contender]
    if (!candidate) throw new RangeError(`there is no contender ${contender}`)
    this.#candidate = candidate
    this.load(this.#profile)
  }

  /** Predicted microseconds of `train`, or 0 if the choice was made for `train` itself. */
  #lastProgram(train: Scheduled, profile: Profile): number {
    return this.#micro.length === 0 ? 0 : makespan(train, this.train, profile).total
  }

  /** How often the program that the choice was made for runs in a step. */
  get #timesMain(): number {
    return Math.max(1, this.#options.model.microBatches - 1)
  }

  #nameOf(micro: number): string {
    if (micro === this.#options.model.microBatches - 1) return 'train'
    return micro === 0 ? 'accumulate.first' : 'accumulate'
  }

  #scheduled(name: string): Scheduled {
    const found = this.#loaded.get(name)
    if (!found) throw new Error(`program ${name} is not loaded`)
    return found
  }

  /**
   * The measured times of `train` for another program, whose ops have the same labels. An op that
   * only the other program has costs next to nothing.
   */
  #profileOf(emitted: Emitted, profile: Profile): Profile {
    if (emitted === this.train) return profile
    const index = new Map(this.train.ops.map(({ label }, op) => [label, op]))
    const times = profile.times.map(
      rank => Float64Array.from(emitted.ops, ({ label }) => rank[index.get(label) ?? -1] ?? 0) satisfies Times,
    )
    return { ...profile, times }
  }
}

const endOf = ({ end }: RunTimes) => end.reduce((latest, time) => Math.max(latest, time), 0)

// The programs of a job and their schedule: chosen by estimate first, then by what steps measured on all ranks, again when steps drift.

import type { Engine, RunTimes } from '../engine.ts'
import { median } from '../median.ts'
import type { ModelConfig } from '../model.ts'
import { emitEvaluate, emitMicroBatch, emitTrain } from '../program/emit.ts'
import type { Emitted, Scheduled } from '../program/program.ts'
import type { TracedRun } from '../report/trace.ts'
import {
  assemble,
  type Candidate,
  choose,
  contenders,
  contentionOf,
  describe,
  durations,
  estimate,
  latencyOf,
  type Machine,
  makespan,
  type Overlap,
  overlap,
  overlapOfAll,
  type Profile,
  type Sharing,
  schedule,
  type Times,
  type Wish,
} from '../schedule/schedule.ts'

/** Steps that warm up caches and branch predictors before the profiled ones. */
const WARM_UP = 2
const PROFILED = 5

/** A core of a small server beside its neighbour: good enough to pick a schedule for the few steps that are measured. */
const GUESS: Machine = { flopsPerSecond: 5e10, bytesPerSecond: 1e9, latencySeconds: 5e-5 }

export interface PlanOptions {
  engine: Engine
  model: ModelConfig
  rank: number
  wish: Wish
  sharing: Sharing
  /** Called with what the programs need, before any of it is taken. */
  needs?: (memory: Needed) => void
}

export interface Needed {
  /** Parameters, gradients, moments; then what lives within a step. */
  persistentBytes: number
  transientBytes: number
}

export interface Replanned {
  /** Every schedule that was weighed, predicted milliseconds of an optimizer step. */
  candidates: Predicted[]
  /** Those that `use` knows: the best predicted, which is loaded, first. */
  contenders: Predicted[]
  /** The same with every all-to-all waited for. */
  sequentialMilliseconds: number | undefined
  /** What it was predicted from; `scmoe plan --results` reads it. */
  measured: { labels: string[]; times: number[][]; contention: number; latency: number }
}

export interface Predicted {
  schedule: string
  predicted: number
}

/** One optimizer step as it ran. Microseconds. */
export interface StepRun {
  runs: TracedRun[]
  /** Engine time of all its programs. */
  total: number
  overlap: Overlap
}

/** All programs of one rank. All ranks make the same calls at the same steps, with the same times, and so load the same order of collectives. */
export class Plan {
  readonly #options: PlanOptions
  readonly #train: Emitted
  /** In the order of a step, without the last, which is `train`. */
  readonly #micro: Emitted[]
  readonly #evaluate: Emitted
  readonly #loaded = new Map<string, Scheduled>()
  #candidate: Candidate
  #contenders: Candidate[] = []
  #profile: Profile | undefined
  #countdown = WARM_UP + PROFILED
  #samples: RunTimes[] = []

  constructor(options: PlanOptions) {
    const { model, rank, wish } = options
    this.#options = options
    this.#train = emitTrain(model, rank)
    this.#evaluate = emitEvaluate(model, rank)
    const others = Math.min(model.microBatches - 1, 2)
    this.#micro = [true, false].slice(0, others).map(first => emitMicroBatch(model, rank, first))
    this.#candidate = choose(this.#train, estimate(this.#train, GUESS), wish)
  }

  /** Uploads all programs as scheduled now. */
  load(profile?: Profile): void {
    const { engine, model, rank, needs } = this.#options
    const programs = [this.#train, ...this.#micro, this.#evaluate].map(emitted => {
      const own = profile && this.#profileOf(emitted, profile)
      const scheduled =
        emitted === this.#train ? this.#candidate.scheduled : schedule(emitted, this.#candidate.choice, own)
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
    for (let micro = 0; micro < model.microBatches; micro++) {
      feed(micro)
      const name = this.#nameOf(micro)
      const offset = 1000 * (performance.now() - started)
      const spans = await engine.run(name)
      const scheduled = this.#scheduled(name)
      runs.push({ ops: scheduled.ops, spans, offset })
      overlaps.push(overlap(scheduled, spans))
      total += lastOf(spans)
      if (name === 'train') this.#observe(spans)
    }
    return { runs, total, overlap: overlapOfAll(overlaps) }
  }

  /** Steps are measured anew, and `due` comes true after the last. */
  measureAgain(): void {
    this.#countdown = PROFILED
    this.#samples = []
  }

  /** Steps are being measured. */
  get measuring(): boolean {
    return this.#countdown > 0
  }

  /** Enough has been measured for `replan`; the same on every rank. */
  get due(): boolean {
    return this.#countdown === 0
  }

  /** Exchanges the ranks' medians and loads the schedule they make best; collective. */
  async replan(): Promise<Replanned> {
    const { wish } = this.#options
    const profile = await this.#exchange()
    this.#countdown = -1
    this.#samples = []
    // Most of a step is micro-batches without sums of gradients; the last has the same slots.
    const main = this.#micro.at(-1) ?? this.#train
    const { candidates } = choose(main, this.#profileOf(main, profile), wish)
    this.#profile = profile
    this.#contenders = contenders(candidates).map(({ choice, predicted, slack }) => {
      return { choice, predicted, slack, scheduled: schedule(this.#train, choice, profile) }
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
        labels: this.#train.ops.map(({ label }) => label),
        times: profile.times.map(times => [...times]),
        contention: profile.contention,
        latency: profile.latency,
      },
    }
  }

  /** Loads one of the contenders of the last `replan`, by index; the same on all ranks. */
  use(contender: number): void {
    const candidate = this.#contenders[contender]
    if (!candidate) throw new RangeError(`there is no contender ${contender}`)
    this.#candidate = candidate
    this.load(this.#profile)
  }

  /** Predicted microseconds of the program that ends a step, where the choice was made for another. */
  #lastProgram(train: Scheduled, profile: Profile): number {
    return this.#micro.length === 0 ? 0 : makespan(train, this.#train, profile).total
  }

  /** How often the program runs that the choice was made for. */
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

  #observe(spans: RunTimes): void {
    if (this.#countdown <= 0) return
    this.#countdown--
    if (this.#countdown < PROFILED) this.#samples.push(spans)
  }

  /** Medians of every rank by rank: each puts its own into a row that is zero elsewhere, so the sum has equal bits everywhere. */
  async #exchange(): Promise<Profile> {
    const { engine, model, rank, sharing } = this.#options
    const scheduled = this.#scheduled('train')
    const count = this.#train.ops.length
    const contention = median(this.#samples.map(spans => contentionOf(scheduled, spans, sharing)))
    const latency = median(this.#samples.map(spans => latencyOf(scheduled, spans)))
    const shared = await engine.allReduce(Float64Array.of(contention, latency))
    const common = { contention: (shared[0] ?? 0) / model.worldSize, latency: (shared[1] ?? 0) / model.worldSize }
    const samples = this.#samples.map(spans => durations(this.#train, scheduled, spans, common))
    const rows = new Float64Array(model.worldSize * count)
    for (let op = 0; op < count; op++) rows[rank * count + op] = median(samples.map(times => times[op] ?? 0))
    const all = await engine.allReduce(rows)
    const times = Array.from({ length: model.worldSize }, (_, from) => all.slice(from * count, (from + 1) * count))
    return { times, ...common }
  }

  /** Times of the training program for another one, whose ops have the same labels; ops of its own cost next to nothing. */
  #profileOf(emitted: Emitted, profile: Profile): Profile {
    if (emitted === this.#train) return profile
    const index = new Map(this.#train.ops.map(({ label }, op) => [label, op]))
    const times = profile.times.map(
      rank => Float64Array.from(emitted.ops, ({ label }) => rank[index.get(label) ?? -1] ?? 0) satisfies Times,
    )
    return { ...profile, times }
  }
}

const lastOf = ({ end }: RunTimes) => end.reduce((latest, time) => Math.max(latest, time), 0)

// The training loop: one optimizer step after another, with evaluations and checkpoints in between.
// All ranks stop after the same step.

import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { Checkpointer } from '../checkpoint/checkpointer.ts'
import type { Trained } from '../checkpoint/contents.ts'
import { type CheckpointPlace, type Held, heldTensors } from '../checkpoint/place.ts'
import type { WorkerConfig } from '../config.ts'
import type { TokenData } from '../data/data.ts'
import type { Engine } from '../engine.ts'
import { WorkerFailure } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { initialise } from '../model/initialise.ts'
import { isLoopback } from '../ranks/hosts.ts'
import { everywhere, type Reduce, together } from '../ranks/together.ts'
import type { WorkerMetrics } from '../report/metrics.ts'
import type { RunRecord } from '../report/record.ts'
import type { Sharing } from '../schedule/schedule.ts'
import { defaultThreads } from '../threads.ts'
import { Buffers } from './buffers.ts'
import { type LearningRate, learningRate } from './learning-rate.ts'
import { Profiler } from './profiler.ts'
import { Programs } from './programs.ts'
import { Reporting } from './reporting.ts'
import { Rescheduler } from './rescheduler.ts'
import { resumption } from './resumption.ts'

export interface Job {
  config: WorkerConfig
  model: ModelConfig
  engine: Engine
  data: TokenData
  record: RunRecord
  metrics: WorkerMetrics
  log: Logger
  /** True once this rank was told to stop. */
  stopRequested: () => boolean
  /** Called after every step with a function that makes its trace. */
  traced: (trace: () => string) => void
}

export type Ending = 'done' | 'stopped'

/**
 * Trains from the newest checkpoint, or from the start, to the last step or until any rank is told
 * to stop; collective.
 */
export async function train(job: Job): Promise<Ending> {
  const trainer = new Trainer(job)
  await trainer.begin()
  return trainer.run()
}

/** The place of the checkpoints; undefined without an output folder. */
function placeOf({ config, model }: Job, reduce: Reduce, trained: () => Trained): CheckpointPlace | undefined {
  if (config.outputDirectory === undefined) return undefined
  return {
    directory: join(config.outputDirectory, 'checkpoints'),
    keep: config.spec.checkpoint?.keep ?? 2,
    model,
    rank: config.rank,
    jobUid: config.jobUid,
    seed: config.spec.training.seed,
    trained,
    reduce,
  }
}

/**
 * Ranks that meet on the loopback address share this machine. Any other rank is taken to have its
 * machine to itself, and a rank on a GPU to have the GPU to itself.
 */
function sharingOf({ backend, rendezvous, worldSize, computeThreads }: WorkerConfig): Sharing {
  if (backend === 'cuda') return 'device'
  return isLoopback(rendezvous.host)
    ? { computeThreads, ranks: worldSize, processors: availableParallelism() }
    : { computeThreads, ranks: 1, processors: defaultThreads() }
}

class Trainer {
  readonly #job: Job
  readonly #reduce: Reduce
  #rate: LearningRate
  readonly #programs: Programs
  readonly #profiler: Profiler
  readonly #rescheduler: Rescheduler
  readonly #buffers: Buffers
  readonly #held: Held[]
  readonly #checkpoints: Checkpointer
  readonly #reporting: Reporting
  /** Steps done. */
  #step = 0

  constructor(job: Job) {
    const { config, model, engine, data, record, log } = job
    const { rank, worldSize, spec } = config
    const { overlap, training } = spec
    const reduce: Reduce = values => engine.allReduce(values)
    this.#job = job
    this.#reduce = reduce
    this.#reporting = new Reporting(job)
    this.#rate = {
      peak: Number(training.optimizer.learningRate),
      warmupSteps: training.optimizer.warmupSteps,
      totalSteps: training.steps,
    }
    const needs = (needed: object) => log.info({ ...needed, availableBytes: engine.availableMemory() }, 'memory')
    const programs = new Programs({ engine, model, rank, wish: overlap, needs })
    const profiler = new Profiler({ reduce, rank, worldSize, emitted: programs.train, sharing: sharingOf(config) })
    this.#programs = programs
    this.#profiler = profiler
    this.#rescheduler = new Rescheduler({ profiler, programs, record, log: rank === 0 ? log : undefined })
    const { seed, globalBatchSequences: globalBatch } = training
    this.#buffers = new Buffers({ engine, model, data, rank, seed, globalBatch })
    // The first load allocates persistent memory, and with it every tensor.
    programs.load()
    this.#held = heldTensors(model, rank, name => this.#buffers.floats(name))
    this.#checkpoints = new Checkpointer({
      place: placeOf(job, reduce, () => this.#trained),
      held: this.#held,
      record,
      log,
    })
  }

  /** Restores the parameters, or initialises and evaluates them. */
  async begin(): Promise<void> {
    const { engine, record, log } = this.#job
    record.scheduled(this.#programs.description)
    this.#step = await this.#checkpoints.restore()
    const { learningRate: rate, warnings } = resumption(this.#checkpoints.trained, this.#trained, this.#step)
    this.#rate = rate
    for (const warning of warnings) log.warn(warning)
    if (this.#step > 0) engine.upload(this.#heldNames)
    else {
      const outcome = await everywhere(this.#reduce, async () => this.#initialise())
      if ('error' in outcome) throw outcome.error
    }
    this.#reporting.begin(this.#step)
    if (this.#step === 0) await this.#evaluate()
  }

  async run(): Promise<Ending> {
    const { config, engine } = this.#job
    const { steps, evaluation } = config.spec.training
    const everySteps = config.spec.checkpoint?.everySteps ?? 100
    let stopping = false
    while (this.#step < steps && !stopping) {
      stopping = await this.#trainStep()
      const last = this.#step === steps
      if (last || this.#step % evaluation.everySteps === 0) await this.#evaluate()
      const ends = last || stopping
      if (ends || this.#step % everySteps === 0) {
        if (config.outputDirectory !== undefined) engine.download(this.#heldNames)
        await this.#checkpoints.start(this.#step, ends)
      }
    }
    await this.#checkpoints.finish()
    this.#reporting.finish(this.#step, {
      history: this.#rescheduler.history,
      engine: engine.description,
      checkpoint: this.#checkpoints.cost,
    })
    return this.#step < steps ? 'stopped' : 'done'
  }

  /** Runs one optimizer step; true if any rank was told to stop. */
  async #trainStep(): Promise<boolean> {
    const { model, stopRequested } = this.#job
    const started = performance.now()
    const wasWriting = this.#checkpoints.pending
    this.#buffers.writeHyper(this.#step, this.#rate)
    const ran = await this.#programs.step(micro => this.#buffers.writeTokens('train', micro, this.#step))
    this.#profiler.observe(ran.last)
    const { loss, gradientNorm } = this.#buffers
    this.#checkFinite(loss, gradientNorm)
    this.#reporting.ran(started, ran.runs)
    const all = await together(this.#reduce, {
      stop: stopRequested(),
      disturbed: wasWriting,
      pending: this.#checkpoints.pending,
      communication: ran.overlap.communication / 1000,
      waited: ran.overlap.waited / 1000,
      shareOfMoe: ran.overlap.communicationShareOfMoe,
      engineTime: ran.total / 1000,
    })
    // The sum has just brought all ranks to the same point, so their clocks show about the same.
    const milliseconds = performance.now() - started
    const mean = (sum: number) => sum / model.worldSize
    const figures = {
      loss,
      milliseconds,
      communication: mean(all.communication),
      waited: mean(all.waited),
      shareOfMoe: mean(all.shareOfMoe),
    }
    const step = ++this.#step
    const rate = learningRate(step - 1, this.#rate)
    this.#reporting.stepDone(step, figures, { gradientNorm, learningRate: rate, auxLoss: () => this.#buffers.auxLoss })
    this.#checkpoints.stepDone(milliseconds, wasWriting)
    await this.#rescheduler.follow({ step, milliseconds: mean(all.engineTime), disturbed: all.disturbed })
    this.#reporting.logStep(step)
    if (!all.pending) await this.#checkpoints.advance()
    return all.stop
  }

  async #evaluate(): Promise<void> {
    const { engine, config, model } = this.#job
    const { batches } = config.spec.training.evaluation
    let total = 0
    for (let batch = 0; batch < batches; batch++) {
      for (let micro = 0; micro < model.microBatches; micro++) {
        this.#buffers.writeTokens('validation', micro, batch)
        await engine.run('evaluate')
        total += this.#buffers.loss
      }
    }
    this.#reporting.evaluated(this.#step, total / (batches * model.microBatches))
  }

  /** Gives the parameters their first values, and zeros to the moments. */
  #initialise(): void {
    for (const { name, tensor, slice, data } of this.#held) {
      if (name === tensor.name) data.set(initialise(tensor, this.#job.config.spec.training.seed, slice))
      else data.fill(0)
    }
    this.#job.engine.upload(this.#heldNames)
  }

  /** The words of a checkpoint of this moment about its training. */
  get #trained(): Trained {
    const { data, config } = this.#job
    const { builtin, path, tokens } = config.spec.data
    const source = path ?? `builtin ${builtin}`
    return { data: { source, tokens, length: data.length }, learningRate: this.#rate }
  }

  get #heldNames(): string[] {
    return this.#held.map(({ name }) => name)
  }

  #checkFinite(loss: number, norm: number): void {
    if (Number.isFinite(loss) && Number.isFinite(norm)) return
    const what = Number.isFinite(loss) ? `gradient norm is ${norm}` : `loss is ${loss}`
    throw new WorkerFailure(
      'diverged',
      `The ${what} in step ${this.#step + 1}: training diverged. Lower spec.training.optimizer.learningRate (${this.#rate.peak}) or raise warmupSteps (${this.#rate.warmupSteps}).`,
    )
  }
}

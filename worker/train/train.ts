// The training loop: one optimizer step after another, evaluated, reported and saved; stopped by all ranks after the same step.

import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { Checkpointer } from '../checkpoint/checkpointer.ts'
import { type CheckpointPlace, type Held, heldTensors } from '../checkpoint/place.ts'
import type { WorkerConfig } from '../config.ts'
import type { TokenData } from '../data/data.ts'
import type { Engine } from '../engine.ts'
import { WorkerFailure } from '../failure.ts'
import { initialise, type ModelConfig } from '../model.ts'
import { BUFFER } from '../program/emit.ts'
import { isLoopback } from '../ranks/rendezvous.ts'
import { everywhere } from '../ranks/together.ts'
import { LossLog } from '../report/losses.ts'
import type { WorkerMetrics } from '../report/metrics.ts'
import type { RunRecord, StepFigures } from '../report/record.ts'
import { isSummarised, writeResults, writeTrace } from '../report/results.ts'
import { chromeTrace } from '../report/trace.ts'
import type { Sharing } from '../schedule/schedule.ts'
import { defaultThreads } from '../threads.ts'
import { hyperParameters, type LearningRate } from './learning-rate.ts'
import { Plans } from './plans.ts'
import { Plan } from './programs.ts'

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
  /** Called after every step with a way to make its trace. */
  traced: (trace: () => string) => void
}

export type Ending = 'done' | 'stopped'

/** Trains from the newest checkpoint, or from the start, to the last step or until any rank is told to stop; collective. */
export async function train(job: Job): Promise<Ending> {
  const trainer = new Trainer(job)
  await trainer.begin()
  return trainer.run()
}

/** Where checkpoints go; undefined without an output folder. */
function placeOf({ config, model, engine }: Job): CheckpointPlace | undefined {
  if (config.outputDirectory === undefined) return undefined
  return {
    directory: join(config.outputDirectory, 'checkpoints'),
    keep: config.spec.checkpoint?.keep ?? 2,
    model,
    rank: config.rank,
    jobUid: config.jobUid,
    seed: config.spec.training.seed,
    reduce: values => engine.allReduce(values),
  }
}

/** Ranks that meet on the loopback address share this machine; others are taken to have theirs to themselves. A GPU is its rank's own. */
function sharingOf({ backend, rendezvous, worldSize, computeThreads }: WorkerConfig): Sharing {
  if (backend === 'cuda') return 'device'
  return isLoopback(rendezvous.host)
    ? { computeThreads, ranks: worldSize, processors: availableParallelism() }
    : { computeThreads, ranks: 1, processors: defaultThreads() }
}

class Trainer {
  readonly #job: Job
  readonly #plan: Plan
  readonly #rate: LearningRate
  readonly #held: Held[]
  readonly #checkpoints: Checkpointer
  #losses: LossLog | undefined
  #step = 0
  /** Steps that were done before. */
  #begun = 0
  #lastLog = 0
  readonly #plans: Plans
  #trace: (() => string) | undefined

  constructor(job: Job) {
    const { config, model, engine } = job
    const { overlap, training } = config.spec
    this.#job = job
    this.#plan = new Plan({
      engine,
      model,
      rank: config.rank,
      wish: overlap,
      sharing: sharingOf(config),
      needs: needed => job.log.info({ ...needed, availableBytes: engine.availableMemory() }, 'memory'),
    })
    this.#plans = new Plans({
      plan: this.#plan,
      record: job.record,
      log: config.rank === 0 ? job.log : undefined,
    })
    this.#rate = {
      peak: Number(training.optimizer.learningRate),
      warmupSteps: training.optimizer.warmupSteps,
      totalSteps: training.steps,
    }
    // Persistent memory, and with it every tensor, is there from the first load on.
    this.#plan.load()
    this.#held = heldTensors(model, config.rank, name => this.#floats(name))
    this.#checkpoints = new Checkpointer({ place: placeOf(job), held: this.#held, record: job.record, log: job.log })
  }

  /** Parameters and the first evaluation. */
  async begin(): Promise<void> {
    const { config, engine, record } = this.#job
    record.scheduled(this.#plan.description)
    this.#step = await this.#checkpoints.restore()
    this.#begun = this.#step
    if (this.#step > 0) engine.upload(this.#held.map(({ name }) => name))
    else {
      const outcome = await everywhere(
        values => engine.allReduce(values),
        async () => this.#initialise(),
      )
      if ('error' in outcome) throw outcome.error
    }
    if (config.outputDirectory !== undefined && config.rank === 0)
      this.#losses = new LossLog(config.outputDirectory, this.#step)
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
        if (config.outputDirectory !== undefined) engine.download(this.#held.map(({ name }) => name))
        await this.#checkpoints.start(this.#step, ends)
      }
    }
    await this.#checkpoints.finish()
    if (config.outputDirectory !== undefined && this.#trace)
      writeTrace(config.outputDirectory, config.rank, this.#trace())
    if (config.rank === 0) this.#summarise()
    return this.#step < steps ? 'stopped' : 'done'
  }

  /** One optimizer step; true when a rank was told to stop. */
  async #trainStep(): Promise<boolean> {
    const { engine, config, model, metrics, record } = this.#job
    const started = performance.now()
    const writing = this.#checkpoints.pending
    this.#floats(BUFFER.hyper).set(hyperParameters(this.#step, this.#rate, model))
    engine.upload([BUFFER.hyper])
    const ran = await this.#plan.step(micro => this.#readTokens('train', micro, this.#step))
    const loss = this.#scalar(BUFFER.loss)
    const norm = this.#scalar(BUFFER.norm)
    this.#checkFinite(loss, norm)
    const startMicroseconds = 1000 * (performance.timeOrigin + started)
    this.#trace = () => chromeTrace({ rank: config.rank, startMicroseconds, runs: ran.runs })
    this.#job.traced(this.#trace)
    const { communication, waited, communicationShareOfMoe } = ran.overlap
    const flags = [this.#job.stopRequested(), writing, this.#checkpoints.pending].map(Number)
    const own = [...flags, communication / 1000, waited / 1000, communicationShareOfMoe, ran.total / 1000]
    const [stop = 0, disturbed = 0, pending = 0, ...sums] = await engine.allReduce(Float64Array.from(own))
    const [communicated = 0, stood = 0, shareOfMoe = 0, took = 0] = sums.map(sum => sum / model.worldSize)
    // The sum has just brought the ranks to the same point: their clocks differ by less than it takes.
    const milliseconds = performance.now() - started
    const figures: StepFigures = { loss, milliseconds, communication: communicated, waited: stood, shareOfMoe }
    this.#step++
    record.stepDone(this.#step, figures)
    metrics.stepDone(figures)
    this.#losses?.append({ step: this.#step, loss, auxLoss: this.#auxLoss(), gradientNorm: norm })
    this.#checkpoints.stepDone(milliseconds, writing)
    await this.#plans.follow({ step: this.#step, milliseconds: took, disturbed: disturbed > 0 })
    this.#logStep()
    if (pending === 0) await this.#checkpoints.advance()
    return stop > 0
  }

  async #evaluate(): Promise<void> {
    const { engine, config, model, record, log } = this.#job
    const { batches } = config.spec.training.evaluation
    let total = 0
    for (let batch = 0; batch < batches; batch++) {
      for (let micro = 0; micro < model.microBatches; micro++) {
        this.#readTokens('validation', micro, batch)
        await engine.run('evaluate')
        total += this.#scalar(BUFFER.loss)
      }
    }
    const evaluationLoss = total / (batches * model.microBatches)
    record.evaluated(evaluationLoss)
    this.#losses?.append({ step: this.#step, evaluationLoss })
    if (config.rank === 0) log.info({ step: this.#step, evaluationLoss }, 'evaluation')
  }

  #initialise(): void {
    for (const { name, tensor, slice, data } of this.#held) {
      if (name === tensor.name) data.set(initialise(tensor, this.#job.config.spec.training.seed, slice))
      else data.fill(0)
    }
    this.#job.engine.upload(this.#held.map(({ name }) => name))
  }

  #checkFinite(loss: number, norm: number): void {
    if (Number.isFinite(loss) && Number.isFinite(norm)) return
    const what = Number.isFinite(loss) ? `gradient norm is ${norm}` : `loss is ${loss}`
    throw new WorkerFailure(
      'diverged',
      `The ${what} in step ${this.#step + 1}: training diverged. Lower spec.training.optimizer.learningRate (${this.#rate.peak}) or raise warmupSteps (${this.#rate.warmupSteps}).`,
    )
  }

  #logStep(): void {
    const { record, config, log } = this.#job
    if (config.rank !== 0) return
    const now = performance.now()
    const due = now - this.#lastLog >= config.spec.reporting.intervalSeconds * 1000
    if (!due && this.#step !== config.spec.training.steps) return
    this.#lastLog = now
    const rates = record.rates()
    log.info(
      {
        step: this.#step,
        ...record.losses.last,
        tokensPerSecond: Math.round(rates?.tokensPerSecond ?? 0),
        overlapPercent: rates?.overlapPercent && Math.round(rates.overlapPercent),
      },
      'step',
    )
  }

  /** What an earlier run wrote stays where this one found every step done. */
  #summarise(): void {
    const { config, record, log, engine } = this.#job
    if (this.#step === this.#begun && isSummarised(config.outputDirectory, this.#step)) {
      log.info({ steps: this.#step }, 'nothing left to do')
      return
    }
    const { first, last } = record.losses
    const { candidates, ...plans } = this.#plans.summary
    const summary = {
      steps: this.#step,
      totalSteps: config.spec.training.steps,
      worldSize: config.worldSize,
      loss: { first: first.loss, last: last.loss },
      evaluationLoss: { first: first.evaluationLoss, last: last.evaluationLoss },
      ...record.rates(),
      schedule: record.schedule,
      ...plans,
      engine: engine.description,
      checkpointStep: record.checkpointStep,
      checkpoint: this.#checkpoints.cost,
    }
    log.info(summary, 'finished')
    if (config.outputDirectory === undefined) return
    writeResults(config.outputDirectory, { ...summary, candidates }, this.#plans.measured)
  }

  /** A rank's sequences lie beside each other in the global batch, so that micro-batches do not change what it learns from. */
  #slice(split: 'train' | 'validation', micro: number) {
    const { config, model } = this.#job
    const { seed, globalBatchSequences } = config.spec.training
    return {
      split,
      seed,
      globalBatch: globalBatchSequences,
      first: (config.rank * model.microBatches + micro) * model.batch,
      count: model.batch,
    }
  }

  #auxLoss(): number {
    const { units, kind } = this.#job.model
    if (kind === 'Dense') return 0
    return Array.from({ length: units }, (_, unit) => this.#scalar(BUFFER.aux(unit))).reduce((sum, aux) => sum + aux)
  }

  #scalar(name: string): number {
    this.#job.engine.download([name])
    return this.#floats(name)[0] ?? Number.NaN
  }

  #floats(name: string): Float32Array {
    const view = this.#job.engine.view(name)
    if (view instanceof Float32Array) return view
    throw new WorkerFailure('internal', `buffer ${name} does not hold f32`)
  }

  #readTokens(split: 'train' | 'validation', micro: number, step: number): void {
    const { engine, data } = this.#job
    const view = engine.view(BUFFER.tokens)
    if (!(view instanceof Int32Array)) throw new WorkerFailure('internal', `buffer ${BUFFER.tokens} does not hold i32`)
    data.readInto(view, { ...this.#slice(split, micro), step })
    engine.upload([BUFFER.tokens])
  }
}

// One run of the quality benchmark as a process: trains a job as a worker does, on one rank and
// with one compute thread, and writes the result. node bench/quality/train.ts JOB-AS-JSON
// RESULT-FILE

import { renameSync, writeFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { join } from 'node:path'
import { dataPath, TokenData } from '../../worker/data/data.ts'
import { BUFFER, emitEvaluate, emitTrain } from '../../worker/emit/emit.ts'
import { createEngine, type Engine } from '../../worker/engine.ts'
import type { ModelConfig } from '../../worker/model/config.ts'
import { initialise } from '../../worker/model/initialise.ts'
import { gradientOf, meanOf, sliceOf, tensors, varianceOf } from '../../worker/model/tensors.ts'
import { assemble, schedule } from '../../worker/schedule/schedule.ts'
import { hyperParameters, type LearningRate } from '../../worker/train/learning-rate.ts'
import { configOf, type Job, specOf } from './jobs.ts'
import { countsOf, keepCounts, type Load, LoadMeter } from './load.ts'

export interface Result {
  job: Job
  /** Cross entropy on held-out text after the last step, nats per byte. */
  evaluationLoss: number
  /** Mean loss of the last `loadSteps` steps. */
  trainingLoss: number
  /** Load of the experts in the last `loadSteps` steps; undefined for Dense. */
  load: Load | undefined
  seconds: number
  engine: string
}

/** Seed of the held-out sequences. */
const EVALUATION_SEED = 0
const NICE = 10
const ALONE = { rank: 0, worldSize: 1, expertParallelSize: 1, computeThreads: 1, timeoutMilliseconds: 60_000 }

class Run {
  readonly #job: Job
  readonly #config: ModelConfig
  readonly #engine: Engine = createEngine(ALONE)
  readonly #counts: ReturnType<typeof countsOf>
  readonly #data: TokenData
  readonly #rate: LearningRate

  constructor(job: Job) {
    const spec = specOf(job)
    const { steps, optimizer } = spec.training
    this.#job = job
    this.#config = configOf(job)
    this.#rate = { peak: Number(optimizer.learningRate), warmupSteps: optimizer.warmupSteps, totalSteps: steps }
    const emitted = [emitTrain, emitEvaluate].map(emit => keepCounts(emit(this.#config, 0)))
    for (const each of emitted) this.#engine.load(assemble(schedule(each, { strategy: 'Sequential' }), this.#config, 0))
    this.#counts = emitted[0] ? countsOf(emitted[0]) : []
    const path = dataPath(spec.data, undefined, join(import.meta.dirname, '../../build/data'))
    const { vocabulary, sequence } = this.#config
    this.#data = new TokenData(path, { tokens: spec.data.tokens, vocabulary, sequenceLength: sequence })
    for (const tensor of tensors(this.#config)) {
      this.#engine.view(tensor.name).set(initialise(tensor, job.seed, sliceOf(tensor, this.#config, 0)))
      for (const beside of [gradientOf, meanOf, varianceOf]) this.#engine.view(beside(tensor.name)).fill(0)
    }
  }

  async result(): Promise<Result> {
    const started = performance.now()
    const { steps, loadSteps } = this.#job
    const meter = new LoadMeter(this.#config)
    const last: number[] = []
    for (let step = 0; step < steps; step++) {
      const loss = await this.#step(step)
      if (!Number.isFinite(loss)) throw new Error(`the loss is ${loss} in step ${step + 1} of ${this.#job.kind}`)
      if (step < steps - loadSteps) continue
      last.push(loss)
      for (const { buffers } of this.#counts) meter.add(buffers.map(name => this.#engine.view(name)))
    }
    return {
      job: this.#job,
      evaluationLoss: await this.#evaluate(),
      trainingLoss: last.reduce((sum, loss) => sum + loss, 0) / last.length,
      load: meter.load,
      seconds: (performance.now() - started) / 1000,
      engine: this.#engine.description,
    }
  }

  async #step(step: number): Promise<number> {
    this.#engine.view(BUFFER.hyper).set(hyperParameters(step, this.#rate, this.#config))
    this.#read({ split: 'train', seed: this.#job.seed, step })
    await this.#engine.run('train')
    return this.#loss()
  }

  async #evaluate(): Promise<number> {
    const { evaluationBatches } = this.#job
    let sum = 0
    for (let step = 0; step < evaluationBatches; step++) {
      this.#read({ split: 'validation', seed: EVALUATION_SEED, step })
      await this.#engine.run('evaluate')
      sum += this.#loss()
    }
    return sum / evaluationBatches
  }

  #read(at: { split: 'train' | 'validation'; seed: number; step: number }): void {
    const tokens = this.#engine.view(BUFFER.tokens)
    const { batch } = this.#config
    if (tokens instanceof Int32Array) this.#data.readInto(tokens, { ...at, globalBatch: batch, first: 0, count: batch })
    else throw new Error(`buffer ${BUFFER.tokens} does not hold i32`)
  }

  #loss(): number {
    return this.#engine.view(BUFFER.loss)[0] ?? Number.NaN
  }

  close(): void {
    this.#data.close()
    this.#engine.close()
  }
}

// The channel closes when the process that started this one ends.
process.on('disconnect', () => process.exit(1))
setPriority(Math.max(NICE, getPriority()))
const [text = '', path = ''] = process.argv.slice(2)
const run = new Run(JSON.parse(text))
const result = await run.result()
run.close()
writeFileSync(`${path}.tmp`, JSON.stringify(result))
renameSync(`${path}.tmp`, path)
process.exit()

// Evaluates a model over a file of tokens, on one rank in this process: its losses and their
// gradient.

import { closeSync, openSync, renameSync, rmSync } from 'node:fs'
import type { Evaluation, EvaluationOrder } from '../../crds/evaluation.ts'
import { brokenRules, brokenText } from '../../crds/rules.ts'
import { writeSafetensors } from '../checkpoint/safetensors.ts'
import { TokenFile } from '../data/token-file.ts'
import { BUFFER } from '../emit/emit.ts'
import { createEngine, type Engine } from '../engine.ts'
import { errnoText, WorkerFailure } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { gradientOf, tensors } from '../model/tensors.ts'
import { assemble, schedule } from '../schedule/schedule.ts'
import { defaultThreads } from '../threads.ts'
import { demandModel, locate, readParameters, type Source } from './checkpoint.ts'
import { type Batch, batchesOf, batchOf, emitBatch, type ModelSpec, modelOf, specOfIndex } from './model.ts'
import { BYTE_VALUES, type Reading, SAID, tokenType } from './token-type.ts'

/**
 * Does what `order` says. `progress` is called with the number of sequences that are done. Throws
 * `WorkerFailure` or `EngineError`.
 */
export async function evaluate(
  order: EvaluationOrder,
  progress: (done: number, sequences: number) => void = () => undefined,
): Promise<Evaluation> {
  const source = await locate(order.checkpoint)
  const spec = specOf(order, source)
  demandModel(source, modelOf(spec, 1))
  if (order.gradients !== undefined) demandWritable(order.gradients)
  const { vocabulary } = modelOf(spec, 1)
  const reading = tokenType({
    source: described(source).checkpoint,
    trained: source.kind === 'checkpoint' ? source.index.trained : undefined,
    type: order.type,
    spec: order.spec,
    vocabulary,
  })
  const file = tokenFile(order.tokens, reading, vocabulary)
  const engine = createEngine({
    rank: 0,
    worldSize: 1,
    expertParallelSize: 1,
    computeThreads: order.threads ?? defaultThreads(),
    timeoutMilliseconds: 1000,
  })
  try {
    const sequences = sequencesOf(order, file, spec.training.sequenceLength)
    const batches = batchesOf(sequences, order.batch ?? (order.spec && batchOf(order.spec)))
    const run = new Run(engine, { spec, batches, sequences, gradients: !order.lossOnly })
    await readParameters(source, run.model, name => run.floats(name))
    for (const batch of batches) {
      await run.batch(batch, (tokens, at) => file.read(tokens, at))
      progress(batch.first + batch.count, sequences)
    }
    const found = {
      ...described(source),
      data: { path: file.path, type: reading.tokens, because: reading.because, tokens: file.length },
      vocabulary,
      precision: 'float32' as const,
      ...run.result(),
      ...(order.gradients !== undefined && { gradients: order.gradients }),
    }
    if (order.gradients !== undefined) await run.writeGradients(order.gradients, found)
    return found
  } finally {
    engine.close()
    file.close()
  }
}

function described(source: Source): Pick<Evaluation, 'checkpoint' | 'step'> {
  if (source.kind === 'checkpoint') return { checkpoint: source.folder, step: source.index.step }
  return { checkpoint: source.files.join(', ') }
}

function specOf({ spec }: EvaluationOrder, source: Source): ModelSpec {
  if (spec !== undefined) return spec
  if (source.kind === 'checkpoint') {
    const own = specOfIndex(source.index)
    const broken = brokenRules(own, 'checkpoint')
    if (broken.length === 0) return own
    throw new WorkerFailure(
      'badConfig',
      `The checkpoint ${source.folder} holds a model that no job can have: ${brokenText(broken)}. Give the folder of another checkpoint.`,
    )
  }
  throw new WorkerFailure(
    'badConfig',
    `${source.files[0]} is no checkpoint of this program, so nothing says which model the weights belong to: give a job with that model by --job.`,
  )
}

/** Token numbers read as bytes are only believed if somebody says so. */
function tokenFile(path: string, { tokens, because }: Reading, vocabulary: number): TokenFile {
  const file = new TokenFile(path, { tokens, vocabulary })
  const areText = tokens === 'bytes' && vocabulary >= BYTE_VALUES
  if (!areText || file.look !== 'binary' || because === SAID) return file
  file.close()
  throw new WorkerFailure(
    'badData',
    `The data ${path} has zero bytes, which text does not have, but it would be read as bytes ${because}: if it holds token numbers, they are not those of this model; otherwise say --type bytes.`,
  )
}

/** Sequences lie end to end in the file. The last target of each is the first token of the next. */
function sequencesOf({ sequences }: EvaluationOrder, file: TokenFile, sequenceLength: number): number {
  const most = Math.floor((file.length - 1) / sequenceLength)
  const wanted = sequences ?? Math.max(1, most)
  if (wanted <= most) return wanted
  throw new WorkerFailure(
    'badData',
    `The data ${file.path} has ${file.length} ${file.unit}, but ${wanted} ${wanted === 1 ? 'sequence' : 'sequences'} of ${sequenceLength} and the last target need ${wanted * sequenceLength + 1}: use a longer file${wanted === 1 ? '' : ', or fewer --sequences'}.`,
  )
}

interface Plan {
  spec: ModelSpec
  batches: readonly Batch[]
  sequences: number
  gradients: boolean
}

/** The programs and memory of an evaluation, and the sums over its batches. */
class Run {
  readonly model: ModelConfig
  readonly #engine: Engine
  readonly #plan: Plan
  /** Programs by the number of sequences in a batch. */
  readonly #programs = new Map<number, { name: string; weight: number }>()
  #crossEntropy = 0
  #aux = 0
  #z = 0

  constructor(engine: Engine, plan: Plan) {
    this.#engine = engine
    this.#plan = plan
    const { spec, batches, sequences, gradients } = plan
    const most = batches[0]?.count ?? 1
    this.model = modelOf(spec, most)
    for (const count of new Set(batches.map(batch => batch.count))) {
      const { emitted, model, weight } = emitBatch(spec, { count, most, sequences, gradients })
      engine.load(assemble(schedule(emitted, { strategy: 'Sequential' }), model, 0))
      this.#programs.set(count, { name: emitted.name, weight })
    }
    if (gradients) for (const { name } of tensors(this.model)) this.floats(gradientOf(name)).fill(0)
  }

  /** Runs a batch; `read` fills tokens from position `start` of the file on. */
  async batch({ first, count }: Batch, read: (tokens: Int32Array, start: number) => void): Promise<void> {
    const program = this.#programs.get(count)
    const tokens = this.#engine.view(BUFFER.tokens)
    if (program === undefined || !(tokens instanceof Int32Array)) throw new Error(`no program for ${count} sequences`)
    const { sequence } = this.model
    for (let i = 0; i < count; i++)
      read(tokens.subarray(i * (sequence + 1), (i + 1) * (sequence + 1)), (first + i) * sequence)
    for (const name of this.#losses) this.floats(name).fill(0)
    await this.#engine.run(program.name)
    const [crossEntropy = Number.NaN] = this.floats(BUFFER.loss)
    this.#crossEntropy += program.weight * crossEntropy
    this.#aux += program.weight * this.#sum(BUFFER.aux, this.#hasAux)
    this.#z += program.weight * this.#sum(BUFFER.z, this.#hasZ)
  }

  result(): Omit<Evaluation, 'checkpoint' | 'data' | 'vocabulary' | 'precision'> {
    const { auxCoefficient, zCoefficient, sequence, batch } = this.model
    const loss =
      this.#crossEntropy + (this.#hasAux ? auxCoefficient * this.#aux : 0) + (this.#hasZ ? zCoefficient * this.#z : 0)
    const gradientNorm = this.#plan.gradients ? this.#gradientNorm() : undefined
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm ?? 0))
      throw new WorkerFailure(
        'diverged',
        `The loss is ${loss}, the gradient norm ${gradientNorm ?? 'not computed'}: the weights are not finite or too large.`,
      )
    return {
      sequences: this.#plan.sequences,
      sequenceLength: sequence,
      batchSequences: batch,
      loss,
      crossEntropy: this.#crossEntropy,
      ...(this.#hasAux && { auxLoss: this.#aux, auxCoefficient }),
      ...(this.#hasZ && { zLoss: this.#z, zCoefficient }),
      ...(gradientNorm !== undefined && { gradientNorm }),
    }
  }

  /**
   * Writes the gradients under the names and in the shapes of the parameters. A file that was there
   * is replaced only when the new one is complete.
   */
  async writeGradients(path: string, found: Evaluation): Promise<void> {
    const list = tensors(this.model).map(({ name, shape }) => ({ name, shape, data: this.floats(gradientOf(name)) }))
    const metadata = {
      format: 'scmoe-gradients-1',
      loss: String(found.loss),
      sequences: String(found.sequences),
      checkpoint: found.checkpoint,
    }
    const temporary = `${path}.tmp-${process.pid}`
    try {
      await writeSafetensors(temporary, list, metadata)
      renameSync(temporary, path)
    } catch (error) {
      throw notWritable(path, error)
    } finally {
      rmSync(temporary, { force: true })
    }
  }

  floats(name: string): Float32Array {
    const view = this.#engine.view(name)
    if (view instanceof Float32Array) return view
    throw new WorkerFailure('internal', `buffer ${name} does not hold f32`)
  }

  get #hasAux(): boolean {
    return this.model.kind !== 'Dense'
  }

  get #hasZ(): boolean {
    return this.#hasAux && this.model.zCoefficient > 0
  }

  get #losses(): string[] {
    const units = Array.from({ length: this.model.units }, (_, unit) => unit)
    return [BUFFER.loss, ...(this.#hasAux ? units.map(BUFFER.aux) : []), ...(this.#hasZ ? units.map(BUFFER.z) : [])]
  }

  #sum(name: (unit: number) => string, there: boolean): number {
    if (!there) return 0
    return Array.from({ length: this.model.units }, (_, unit) => this.floats(name(unit))[0] ?? Number.NaN).reduce(
      (a, b) => a + b,
    )
  }

  #gradientNorm(): number {
    let squares = 0
    for (const { name } of tensors(this.model))
      for (const value of this.floats(gradientOf(name))) squares += value * value
    return Math.sqrt(squares)
  }
}

/** Checked before the evaluation, which may take hours, rather than after it. */
function demandWritable(path: string): void {
  const temporary = `${path}.tmp-${process.pid}`
  try {
    closeSync(openSync(temporary, 'wx'))
    rmSync(temporary)
  } catch (error) {
    throw notWritable(path, error)
  }
}

const notWritable = (path: string, error: unknown) =>
  new WorkerFailure('badConfig', `--gradients: ${path} cannot be written: ${errnoText(error)}. Give another file.`)

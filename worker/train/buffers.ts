// The persistent buffers through which training and its programs exchange numbers.

import type { TokenData } from '../data/data.ts'
import { BUFFER } from '../emit/emit.ts'
import type { Engine } from '../engine.ts'
import { asFailure, WorkerFailure } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { hyperParameters, type LearningRate } from './learning-rate.ts'

export interface BuffersOptions {
  engine: Pick<Engine, 'view' | 'upload' | 'download'>
  model: ModelConfig
  data: Pick<TokenData, 'readInto'>
  rank: number
  seed: number
  /** Sequences in the global batch. */
  globalBatch: number
}

/** Buffers of loaded programs; nothing can be read or written before the first load. */
export class Buffers {
  readonly #options: BuffersOptions
  /** The tokens of a step that has not begun, by micro-batch. */
  #ahead: { step: number; tokens: Int32Array[] } | undefined

  constructor(options: BuffersOptions) {
    this.#options = options
  }

  /** Writes the learning rate and the bias corrections of a step. */
  writeHyper(step: number, rate: LearningRate): void {
    const { engine, model } = this.#options
    this.floats(BUFFER.hyper).set(hyperParameters(step, rate, model))
    engine.upload([BUFFER.hyper])
  }

  /**
   * Reads the training tokens of a step, so that data that cannot be read ends the job between two
   * steps. Returns the failure.
   */
  readAhead(step: number): WorkerFailure | undefined {
    const { microBatches, batch, sequence } = this.#options.model
    try {
      const tokens = Array.from({ length: microBatches }, (_, micro) => {
        const drawn = new Int32Array(batch * (sequence + 1))
        this.#draw(drawn, 'train', micro, step)
        return drawn
      })
      this.#ahead = { step, tokens }
      return undefined
    } catch (error) {
      return asFailure(error)
    }
  }

  /** Writes the tokens of a micro-batch, i32 [batch, sequence + 1]. */
  writeTokens(split: 'train' | 'validation', micro: number, step: number): void {
    const { engine } = this.#options
    const view = engine.view(BUFFER.tokens)
    if (!(view instanceof Int32Array)) throw new WorkerFailure('internal', `buffer ${BUFFER.tokens} does not hold i32`)
    const ahead = split === 'train' && this.#ahead?.step === step ? this.#ahead.tokens[micro] : undefined
    if (ahead) view.set(ahead)
    else this.#draw(view, split, micro, step)
    engine.upload([BUFFER.tokens])
  }

  #draw(tokens: Int32Array, split: 'train' | 'validation', micro: number, step: number): void {
    const { model, data, rank, seed, globalBatch } = this.#options
    // A rank's sequences are neighbours in the global batch, whatever the number of micro-batches.
    const first = (rank * model.microBatches + micro) * model.batch
    data.readInto(tokens, { split, seed, step, globalBatch, first, count: model.batch })
  }

  /** Cross entropy of the last program, nats per token. */
  get loss(): number {
    return this.#scalar(BUFFER.loss)
  }

  /** Norm of the last step's gradient, before clipping. */
  get gradientNorm(): number {
    return this.#scalar(BUFFER.norm)
  }

  /** Load-balance losses of all MoE layers, added; 0 for a dense model. */
  get auxLoss(): number {
    const { units, kind } = this.#options.model
    if (kind === 'Dense') return 0
    return Array.from({ length: units }, (_, unit) => this.#scalar(BUFFER.aux(unit))).reduce((sum, aux) => sum + aux)
  }

  floats(name: string): Float32Array {
    const view = this.#options.engine.view(name)
    if (view instanceof Float32Array) return view
    throw new WorkerFailure('internal', `buffer ${name} does not hold f32`)
  }

  #scalar(name: string): number {
    this.#options.engine.download([name])
    return this.floats(name)[0] ?? Number.NaN
  }
}

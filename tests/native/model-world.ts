// A whole model on ranks that are processes of their own, driven program by program: what training does, without the worker around it.

import { elementsOf, gradientOf, initialise, type ModelConfig, sliceOf, tensors } from '../../worker/model.ts'
import { BUFFER, emitTrain } from '../../worker/program/emit.ts'
import { assemble, type Choice, schedule } from '../../worker/schedule/schedule.ts'
import { startWorld, type World } from './engine/ranks.ts'

const SEED = 5
const LEARNING_RATE = 0.01

export interface Step {
  loss: number
  aux: number[]
  norm: number
}

/** Initial values of the whole model by name; standard deviations raised by `spread` so that gradients are not tiny. */
export function wholeModel(config: ModelConfig, spread = 1) {
  return new Map(
    tensors(config).map(tensor => {
      const { init } = tensor
      const wide = init.kind === 'normal' ? { ...tensor, init: { ...init, std: init.std * spread } } : tensor
      const values = initialise(wide, SEED, { start: 0, count: elementsOf(tensor.shape) })
      return [tensor.name, { shape: tensor.shape, values }] as const
    }),
  )
}
export type WholeModel = ReturnType<typeof wholeModel>

/** Tokens of all ranks in step `step`, [sequences, T+1]; a pattern that can be learned. */
export function tokensOf(config: ModelConfig, step: number): Int32Array {
  const sequences = config.batch * config.worldSize
  const width = config.sequence + 1
  return Int32Array.from({ length: sequences * width }, (_, i) => {
    const row = Math.floor(i / width) + step * sequences
    return (row * 7 + (i % width) * (1 + (row % 3))) % 50
  })
}

export class ModelWorld implements AsyncDisposable {
  readonly #world: World
  readonly #config: ModelConfig

  private constructor(world: World, config: ModelConfig) {
    this.#world = world
    this.#config = config
  }

  static async start(config: ModelConfig, choice: Choice, model: WholeModel): Promise<ModelWorld> {
    const { expertParallelSize } = config
    const started = new ModelWorld(await startWorld(config.worldSize, { expertParallelSize }), config)
    await started.load(choice)
    await started.reset(model)
    return started
  }

  /** Loads the training program under another schedule; what is persistent stays. */
  async load(choice: Choice): Promise<void> {
    await this.#world.each(async (rank, index) => {
      await rank.call('load', assemble(schedule(emitTrain(this.#config, index), choice), this.#config, index))
    })
  }

  /** Parameters as given, moments zero. */
  async reset(model: WholeModel): Promise<void> {
    await this.#world.each(async (rank, index) => {
      for (const tensor of tensors(this.#config)) {
        const { start, count } = sliceOf(tensor, this.#config, index)
        const values = model.get(tensor.name)?.values.subarray(start, start + count) ?? []
        await rank.call('write', tensor.name, values)
        for (const moment of ['m', 'v']) await rank.call('write', `${tensor.name}.${moment}`, new Float32Array(count))
      }
    })
  }

  /** One optimizer step (t counts from 1) on the step's tokens; the results of every rank. */
  async step(t: number, learningRate = LEARNING_RATE): Promise<Step[]> {
    const { batch, sequence, beta1, beta2, pairs } = this.#config
    const tokens = tokensOf(this.#config, t)
    const perRank = batch * (sequence + 1)
    return this.#world.each(async (rank, index) => {
      await rank.call('write', BUFFER.tokens, tokens.subarray(index * perRank, (index + 1) * perRank))
      await rank.call('write', BUFFER.hyper, [learningRate, 1 - beta1 ** t, 1 - beta2 ** t, 0])
      await rank.call('run', 'train')
      const read = async (name: string) => (await rank.call('read', name))[0] ?? Number.NaN
      const aux: number[] = []
      for (let pair = 0; pair < pairs; pair++) aux.push(await read(BUFFER.aux(pair)))
      return { loss: await read(BUFFER.loss), aux, norm: await read(BUFFER.norm) }
    })
  }

  /** Results of rank 0 over some steps. */
  async steps(count: number): Promise<Step[]> {
    const list: Step[] = []
    for (let t = 1; t <= count; t++) {
      const [first] = await this.step(t)
      if (first) list.push(first)
    }
    return list
  }

  /** Gradients of the last step as one global tensor each: dense from the last rank, experts from the first EP group. */
  async gradients(): Promise<Map<string, Float64Array>> {
    return this.#global(gradientOf, this.#config.worldSize - 1)
  }

  async parameters(): Promise<Map<string, Float64Array>> {
    return this.#global(String, 0)
  }

  async #global(role: (name: string) => string, denseRank: number): Promise<Map<string, Float64Array>> {
    const found = new Map<string, Float64Array>()
    for (const tensor of tensors(this.#config)) {
      const whole = new Float64Array(elementsOf(tensor.shape))
      const ranks =
        tensor.kind === 'dense'
          ? [denseRank]
          : Array.from({ length: this.#config.expertParallelSize }, (_, rank) => rank)
      for (const rank of ranks)
        whole.set(
          await this.#world.rank(rank).call('read', role(tensor.name)),
          sliceOf(tensor, this.#config, rank).start,
        )
      found.set(tensor.name, whole)
    }
    return found
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#world[Symbol.asyncDispose]()
  }
}

/** Largest difference relative to the largest value; both zero: 0. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0
  let largest = 0
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    difference = Math.max(difference, Math.abs((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN)))
    if (Number.isNaN((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN))) return Number.POSITIVE_INFINITY
    largest = Math.max(largest, Math.abs(a[i] ?? 0), Math.abs(b[i] ?? 0))
  }
  return largest === 0 ? 0 : difference / largest
}

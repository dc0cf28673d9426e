// Drives a whole model on ranks that are processes of their own, program by program. This is what
// training does, without the worker.

import { BUFFER, emitEvaluate, emitGradients, emitMicroBatch, emitTrain } from '../../worker/emit/emit.ts'
import type { EngineOptions } from '../../worker/engine.ts'
import type { ModelConfig } from '../../worker/model/config.ts'
import { initialise } from '../../worker/model/initialise.ts'
import { elementsOf, gradientOf, sliceOf, tensors } from '../../worker/model/tensors.ts'
import type { Emitted, Scheduled } from '../../worker/program/program.ts'
import { assemble, type Choice, schedule } from '../../worker/schedule/schedule.ts'
import { World } from './engine/ranks.ts'

const SEED = 5
const LEARNING_RATE = 0.01
/** The values of `hyper`, the third input of adamw, for optimizer steps of the tests. */
export const hyper = ({ beta1, beta2 }: ModelConfig, t: number, learningRate = LEARNING_RATE) => [
  learningRate,
  1 - beta1 ** t,
  1 - beta2 ** t,
  0,
]

export interface Step {
  loss: number
  aux: number[]
  /** Empty if zCoefficient is 0. */
  z: number[]
  norm: number
}

/**
 * Initial values of the whole model by name. Standard deviations are multiplied by `spread`, so
 * that gradients are not tiny.
 */
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

/**
 * The tokens of all micro-batches and ranks in step `step`, [sequences, T+1], micro-batch by
 * micro-batch. They have a pattern that can be learned.
 */
export function tokensOf(
  config: Pick<ModelConfig, 'batch' | 'worldSize' | 'microBatches' | 'sequence'>,
  step: number,
): Int32Array {
  const sequences = config.batch * config.worldSize * config.microBatches
  const width = config.sequence + 1
  return Int32Array.from({ length: sequences * width }, (_, i) => {
    const row = Math.floor(i / width) + step * sequences
    return (row * 7 + (i % width) * (1 + (row % 3))) % 50
  })
}

/**
 * The kernels that a rank computes with, given as SCMOE_CPU_ISA; undefined means the best of this
 * machine.
 */
export type Isa = 'reference' | 'baseline' | 'avx2' | 'avx512'

/**
 * Processes of ranks. They are started once for each number of ranks, and get a new engine for each
 * model.
 */
export class Processes implements AsyncDisposable {
  readonly #worlds = new Map<string, World>()
  readonly #environment: NodeJS.ProcessEnv
  readonly #options: Partial<EngineOptions>

  /** Processes get the variables in `environment`, and engines the `options`. */
  constructor(environment: NodeJS.ProcessEnv = {}, options: Partial<EngineOptions> = {}) {
    this.#environment = environment
    this.#options = options
  }

  async world(config: Pick<ModelConfig, 'worldSize' | 'expertParallelSize'>, isa?: Isa): Promise<World> {
    const { worldSize, expertParallelSize } = config
    const key = `${worldSize} ${isa}`
    const started = this.#worlds.get(key)
    const world = started ?? new World(worldSize, { ...this.#environment, ...(isa && { SCMOE_CPU_ISA: isa }) })
    this.#worlds.set(key, world)
    if (started) await started.each(rank => rank.call('close'))
    await world.create({ ...this.#options, expertParallelSize })
    await world.connect()
    return world
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#worlds.values()].map(world => world[Symbol.asyncDispose]()))
    this.#worlds.clear()
  }
}

export interface Load {
  choice?: Choice
  /** Changes of fields that do not change the persistent layout, e.g. recompute. */
  config?: Partial<ModelConfig>
  /** Changes the schedule before memory is planned. */
  edit?: (scheduled: Scheduled) => Scheduled
}

const SEQUENTIAL: Choice = { strategy: 'Sequential' }

export class ModelWorld {
  readonly #world: World
  #config: ModelConfig

  private constructor(world: World, config: ModelConfig) {
    this.#world = world
    this.#config = config
  }

  /** The world still belongs to `processes`. After the next start it is another model's. */
  static async start(
    processes: Processes,
    config: ModelConfig,
    { model, isa, ...how }: Load & { model: WholeModel; isa?: Isa },
  ): Promise<ModelWorld> {
    const started = new ModelWorld(await processes.world(config, isa), config)
    await started.load(how)
    await started.reset(model)
    return started
  }

  get config(): ModelConfig {
    return this.#config
  }

  /** Loads the programs of an optimizer step. Persistent buffers keep their contents. */
  async load({ choice = SEQUENTIAL, config = {}, edit = same => same }: Load): Promise<void> {
    this.#config = { ...this.#config, ...config }
    const { microBatches } = this.#config
    await this.#world.each(async (rank, index) => {
      const programs = [emitTrain(this.#config, index)]
      if (microBatches > 1) programs.push(emitMicroBatch(this.#config, index, true))
      if (microBatches > 2) programs.push(emitMicroBatch(this.#config, index, false))
      for (const emitted of programs)
        await rank.call('load', assemble(edit(schedule(emitted, choice)), this.#config, index))
    })
  }

  /** Loads and runs `evaluate` or `gradients` on the tokens of the last step. */
  async run(name: 'evaluate' | 'gradients'): Promise<Step[]> {
    const emit: (config: ModelConfig, rank: number) => Emitted = name === 'evaluate' ? emitEvaluate : emitGradients
    return this.#world.each(async (rank, index) => {
      await rank.call('load', assemble(schedule(emit(this.#config, index), SEQUENTIAL), this.#config, index))
      await rank.call('run', name)
      return this.#statistics(index)
    })
  }

  /** Sets the parameters to the given values and the moments to zero. */
  async reset(model: WholeModel): Promise<void> {
    await this.#world.each(async (rank, index) => {
      const writes = tensors(this.#config).flatMap(tensor => {
        const { start, count } = sliceOf(tensor, this.#config, index)
        const values = model.get(tensor.name)?.values.subarray(start, start + count) ?? []
        const zeros = new Float32Array(count)
        return [
          rank.call('write', tensor.name, values),
          ...['m', 'v'].map(moment => rank.call('write', `${tensor.name}.${moment}`, zeros)),
        ]
      })
      await Promise.all(writes)
    })
  }

  /**
   * Runs optimizer step `t`, counted from 1, on the step's tokens. Returns the results of every
   * rank.
   */
  async step(t: number, learningRate = LEARNING_RATE): Promise<Step[]> {
    const { batch, sequence, microBatches, worldSize } = this.#config
    const tokens = tokensOf(this.#config, t)
    const perRank = batch * (sequence + 1)
    return this.#world.each(async (rank, index) => {
      await rank.call('write', BUFFER.hyper, hyper(this.#config, t, learningRate))
      for (let micro = 0; micro < microBatches; micro++) {
        const start = (micro * worldSize + index) * perRank
        await rank.call('write', BUFFER.tokens, tokens.subarray(start, start + perRank))
        const isLast = micro === microBatches - 1
        await rank.call('run', isLast ? 'train' : micro === 0 ? 'accumulate.first' : 'accumulate')
      }
      return this.#statistics(index)
    })
  }

  /** Runs steps and returns the results of rank 0. */
  async steps(count: number): Promise<Step[]> {
    const list: Step[] = []
    for (let t = 1; t <= count; t++) {
      const [first] = await this.step(t)
      if (first) list.push(first)
    }
    return list
  }

  /**
   * The gradients of the last step as global tensors: dense ones from the last rank, experts from
   * the first EP group.
   */
  async gradients(): Promise<Map<string, Float64Array>> {
    return this.#global(gradientOf, this.#config.worldSize - 1)
  }

  async parameters(): Promise<Map<string, Float64Array>> {
    return this.#global(String, 0)
  }

  /** A persistent buffer, rank by rank. */
  async read(buffer: string): Promise<(Float32Array | Int32Array)[]> {
    return this.#world.each(rank => rank.call('read', buffer))
  }

  async #statistics(index: number): Promise<Step> {
    const { units, kind, zCoefficient } = this.#config
    const rank = this.#world.rank(index)
    const read = async (name: string) => (await rank.call('read', name))[0] ?? Number.NaN
    const ofUnits = (name: (unit: number) => string, has: boolean) =>
      Promise.all(Array.from({ length: has ? units : 0 }, (_, unit) => read(name(unit))))
    return {
      loss: await read(BUFFER.loss),
      aux: await ofUnits(BUFFER.aux, kind !== 'Dense'),
      z: await ofUnits(BUFFER.z, kind !== 'Dense' && zCoefficient > 0),
      norm: await read(BUFFER.norm),
    }
  }

  async #global(role: (name: string) => string, denseRank: number): Promise<Map<string, Float64Array>> {
    const found = tensors(this.#config).map(async tensor => {
      const whole = new Float64Array(elementsOf(tensor.shape))
      const ranks =
        tensor.kind === 'dense'
          ? [denseRank]
          : Array.from({ length: this.#config.expertParallelSize }, (_, rank) => rank)
      const parts = ranks.map(async rank => {
        const part = await this.#world.rank(rank).call('read', role(tensor.name))
        whole.set(part, sliceOf(tensor, this.#config, rank).start)
      })
      await Promise.all(parts)
      return [tensor.name, whole] as const
    })
    return new Map(await Promise.all(found))
  }
}

/** The largest difference relative to the largest value; 0 if all values are zero. */
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

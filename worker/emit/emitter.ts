// Collects buffers and ops in the order in which the blocks of a model emit them. The emitter knows
// the tensors, but nothing of the architecture.

import type { ModelConfig } from '../model/config.ts'
import { gradientOf, meanOf, sliceOf, type Tensor, tensors, varianceOf } from '../model/tensors.ts'
import { activationType, cost } from '../program/cost.ts'
import { specsOf } from '../program/effects.ts'
import { OPS, type OpName } from '../program/ops.ts'
import type { Attrs, Buffer, DType, Emitted, Op, Segment } from '../program/program.ts'

export interface Description {
  inputs: string[]
  outputs: string[]
  attrs?: Attrs
  /** Last part of the label. It is left out if the segment has only one op of this queue. */
  label?: string
}

export class Emitter {
  readonly config: ModelConfig
  readonly rank: number
  readonly tensors: readonly Tensor[]
  /** The local tokens N = B*T of a micro-batch. */
  readonly tokens: number
  /** False in a micro-batch whose gradients are summed over ranks only after the next. */
  reduces = true
  /** The number of micro-batches over which losses and gradients are means. */
  readonly microBatches: number
  /** The segment of the ops that are emitted next. */
  segment: Segment = { unit: -1, phase: 'forward', part: 'other' }
  readonly #buffers = new Map<string, Buffer>()
  readonly #ops: Op[] = []
  readonly #shapes = new Map<string, readonly number[]>()
  /** The newest buffer of each name whose activation is computed again. */
  readonly #newest = new Map<string, string>()
  /** Copies of parameters that products read in another type, by the parameter's name. */
  readonly #copies = new Map<string, string>()
  #again = false
  #prefix = ''

  constructor(config: ModelConfig, rank: number, microBatches = 1) {
    this.microBatches = microBatches
    this.config = config
    this.rank = rank
    this.tokens = config.batch * config.sequence
    this.tensors = tensors(config)
    for (const { name, shape } of this.tensors) this.#shapes.set(name, shape)
  }

  /** The attributes of every op on routed rows after dispatch. */
  get group(): Attrs {
    const { experts, capacity, expertParallelSize } = this.config
    return { experts, capacity, rank: this.rank, expertParallelSize }
  }

  /** 1 if statistics are added to those of earlier micro-batches. */
  get accumulate(): 0 | 1 {
    return this.microBatches > 1 ? 1 : 0
  }

  /**
   * Attributes of an op on routed rows that works on all of them at once, as every op is emitted.
   */
  readonly whole: Attrs = { chunk: 0, chunks: 1 }

  /**
   * The parameters of a layer in the order in which ops take them. With tied embeddings the head
   * has the matrix of the embedding.
   */
  parametersOf(scope: string): string[] {
    if (scope === 'head' && this.config.tieEmbeddings) return ['wte']
    const names = ['weight', 'gamma', 'bias', 'beta'].map(name => `${scope}.${name}`)
    return names.filter(name => this.#shapes.has(name))
  }

  /**
   * Ops that `emit` emits fill new buffers, which later ops read under the old names. Until then
   * the memory of the old ones is free.
   */
  again(emit: () => void): void {
    this.#again = true
    this.within('again', emit)
    this.#again = false
  }

  /** Labels of the ops that `emit` emits have `name` before their last part. */
  within(name: string, emit: () => void): void {
    const before = this.#prefix
    this.#prefix = [before, name].filter(Boolean).join('.')
    emit()
    this.#prefix = before
  }

  at(segment: Partial<Segment>): void {
    this.segment = { ...this.segment, ...segment }
  }

  /**
   * Declares memory of one run. An op that writes the buffer as activations gives it their type.
   */
  transient(name: string, elements: number, dtype: DType = 'f32'): string {
    if (!this.#again) return this.#declare({ name, dtype, elements, arena: 'transient' })
    this.#newest.set(name, this.#declare({ name: `${name}~`, dtype, elements, arena: 'transient' }))
    return name
  }

  /** Declares memory that keeps its contents between runs. */
  persistent(name: string, elements: number, dtype: DType = 'f32'): string {
    return this.#declare({ name, dtype, elements, arena: 'persistent' })
  }

  /**
   * Declares parameters, gradients, and first and second moments, at the same places in every
   * program of this rank.
   */
  persistTensors(): void {
    const byBucket = Map.groupBy(this.tensors, tensor => tensor.bucket)
    const grouped = [...byBucket.values()].flat()
    for (const role of [String, gradientOf, meanOf, varianceOf])
      for (const tensor of grouped) this.persistent(role(tensor.name), sliceOf(tensor, this.config, this.rank).count)
  }

  /** The shape [out, in] of a weight, without the experts' axis of an expert tensor. */
  weightShape(scope: string): { in: number; out: number } {
    const [weight = ''] = this.parametersOf(scope)
    const shape = this.#shapes.get(weight)
    const [out, input] = shape?.slice(-2) ?? []
    if (out === undefined || input === undefined) throw new Error(`there is no matrix ${scope}.weight in the model`)
    return { in: input, out }
  }

  op(op: OpName, description: Description): void {
    const { inputs, outputs, attrs = {} } = description
    const newest = (name: string) => this.#newest.get(name) ?? name
    const specs = specsOf({ op, inputs, outputs, attrs })
    this.#ops.push(
      this.#described(op, {
        ...description,
        inputs: inputs.map((name, place) => this.#read(newest(name), specs.inputs[place]?.type === 'activation')),
        outputs: outputs.map((name, place) => this.#written(newest(name), specs.outputs[place]?.type === 'activation')),
      }),
    )
  }

  /** Copies of parameters are made before everything else, so within a run they are never stale. */
  finish(name: string): Emitted {
    this.segment = { unit: -1, phase: 'forward', part: 'other' }
    const copied = { inputs: [...this.#copies.keys()], outputs: [...this.#copies.values()], label: 'cast' }
    const casts = this.#copies.size === 0 ? [] : [this.#described('cast', copied)]
    return { name, buffers: [...this.#buffers.values()], ops: [...casts, ...this.#ops] }
  }

  #described(op: OpName, { inputs, outputs, attrs = {}, label }: Description): Op {
    const { unit, phase, part } = this.segment
    const words = [unit < 0 ? '' : `unit${unit}`, phase, part === 'other' ? '' : part, this.#prefix, label ?? '']
    const elements = outputs.reduce((sum, name) => sum + this.#buffer(name).elements, 0)
    const shape = { op, queue: OPS[op].queue, inputs, outputs, attrs }
    return {
      ...shape,
      label: words.filter(Boolean).join('.'),
      segment: this.segment,
      cost: cost(shape, elements, this.config),
    }
  }

  /**
   * The buffer that an op reads. A parameter that it takes as an activation is replaced by a copy
   * in that type.
   */
  #read(name: string, marked: boolean): string {
    const { elements, arena } = this.#buffer(name)
    const dtype = activationType(this.config)
    if (!marked || arena === 'transient' || dtype === 'f32') return name
    const copy =
      this.#copies.get(name) ?? this.#declare({ name: `${name}.${dtype}`, dtype, elements, arena: 'transient' })
    this.#copies.set(name, copy)
    return copy
  }

  /** The buffer that an op writes. Transient memory gets the type of the ops that write it. */
  #written(name: string, marked: boolean): string {
    const buffer = this.#buffer(name)
    if (marked && buffer.arena === 'transient')
      this.#buffers.set(name, { ...buffer, dtype: activationType(this.config) })
    return name
  }

  #declare(buffer: Buffer): string {
    if (this.#buffers.has(buffer.name)) throw new Error(`buffer ${buffer.name} is declared twice`)
    this.#buffers.set(buffer.name, buffer)
    return buffer.name
  }

  #buffer(name: string): Buffer {
    const buffer = this.#buffers.get(name)
    if (!buffer) throw new Error(`buffer ${name} is used before it is declared`)
    return buffer
  }
}

export const gradients = (list: readonly Tensor[]) => list.map(tensor => gradientOf(tensor.name))
export const localElements = (tensor: Tensor, e: Emitter) => sliceOf(tensor, e.config, e.rank).count

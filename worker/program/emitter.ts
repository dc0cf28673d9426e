// Collects buffers and ops in the order in which blocks describe themselves. Knows the tensors, nothing of the architecture.

import { gradientOf, type ModelConfig, meanOf, sliceOf, type Tensor, tensors, varianceOf } from '../model.ts'
import { cost } from './cost.ts'
import { OPS, type OpName } from './ops.ts'
import type { Attrs, Buffer, DType, Emitted, Op, Segment } from './program.ts'

export interface Description {
  inputs: string[]
  outputs: string[]
  attrs?: Attrs
  /** Last part of the label; left out where the segment has one op of this queue. */
  label?: string
}

export class Emitter {
  readonly config: ModelConfig
  readonly rank: number
  readonly tensors: readonly Tensor[]
  /** Local tokens N = B*T. */
  readonly tokens: number
  /** Where the next ops belong. */
  segment: Segment = { pair: -1, phase: 'forward', part: 'other' }
  readonly #buffers = new Map<string, Buffer>()
  readonly #ops: Op[] = []
  readonly #shapes = new Map<string, readonly number[]>()

  constructor(config: ModelConfig, rank: number) {
    this.config = config
    this.rank = rank
    this.tokens = config.batch * config.sequence
    this.tensors = tensors(config)
    for (const { name, shape } of this.tensors) this.#shapes.set(name, shape)
  }

  /** Attributes of every op that works on routed rows after dispatch. */
  get group(): Attrs {
    const { experts, capacity, expertParallelSize } = this.config
    return { experts, capacity, rank: this.rank, expertParallelSize }
  }

  at(segment: Partial<Segment>): void {
    this.segment = { ...this.segment, ...segment }
  }

  /** Declares memory of one run. */
  transient(name: string, elements: number, dtype: DType = 'f32'): string {
    return this.#declare({ name, dtype, elements, arena: 'transient' })
  }

  /** Declares memory that outlives the run. */
  persistent(name: string, elements: number, dtype: DType = 'f32'): string {
    return this.#declare({ name, dtype, elements, arena: 'persistent' })
  }

  /** Parameters, gradients, first and second moments: the same place in every program of this rank. */
  persistTensors(): void {
    const byBucket = Map.groupBy(this.tensors, tensor => tensor.bucket)
    const grouped = [...byBucket.values()].flat()
    for (const role of [String, gradientOf, meanOf, varianceOf])
      for (const tensor of grouped) this.persistent(role(tensor.name), sliceOf(tensor, this.config, this.rank).count)
  }

  /** [out, in] of a weight; the experts' axis of an expert tensor is left out. */
  weightShape(scope: string): { in: number; out: number } {
    const shape = this.#shapes.get(`${scope}.weight`)
    const [out, input] = shape?.slice(-2) ?? []
    if (out === undefined || input === undefined) throw new Error(`there is no matrix ${scope}.weight in the model`)
    return { in: input, out }
  }

  op(op: OpName, { inputs, outputs, attrs = {}, label }: Description): void {
    const { pair, phase, part } = this.segment
    const words = [pair < 0 ? '' : `pair${pair}`, phase, part === 'other' ? '' : part, label ?? '']
    const elements = outputs.reduce((sum, name) => sum + this.#elements(name), 0)
    this.#ops.push({
      op,
      label: words.filter(Boolean).join('.'),
      queue: OPS[op].queue,
      inputs,
      outputs,
      attrs,
      segment: this.segment,
      cost: cost(op, attrs, elements, this.config),
    })
  }

  finish(name: string): Emitted {
    return { name, buffers: [...this.#buffers.values()], ops: this.#ops }
  }

  #declare(buffer: Buffer): string {
    if (this.#buffers.has(buffer.name)) throw new Error(`buffer ${buffer.name} is declared twice`)
    this.#buffers.set(buffer.name, buffer)
    return buffer.name
  }

  #elements(name: string): number {
    const buffer = this.#buffers.get(name)
    if (!buffer) throw new Error(`buffer ${name} is used before it is declared`)
    return buffer.elements
  }
}

export const gradients = (list: readonly Tensor[]) => list.map(tensor => gradientOf(tensor.name))
export const localElements = (tensor: Tensor, e: Emitter) => sliceOf(tensor, e.config, e.rank).count

// The model as data: numbers of one job, and the list of its tensors with shape, initial values and which rank holds what. Pure.
// Architecture: arXiv 2404.05019. Blocks come in pairs: block 2p is attention + MLP, block 2p+1 is attention + mixture of experts.

import type { ScMoEJobSpec } from '../crds/scmoejob.ts'

export const VOCABULARY = 256

/** The job cannot be run as described; the text names the field, the value and what to do. Retrying does not help. */
export class ModelError extends Error {
  override readonly name = 'ModelError'
}

/** Everything the program depends on, as numbers. Equal on all ranks. */
export interface ModelConfig {
  kind: 'Top2' | 'SharedExpert' | 'ScMoE'
  pairs: number
  dim: number
  heads: number
  feedForward: number
  vocabulary: number
  experts: number
  topK: number
  /** Rows one rank may send to one expert. */
  capacity: number
  auxCoefficient: number
  /** Sequences of this rank in one step. */
  batch: number
  /** Tokens per sequence. */
  sequence: number
  worldSize: number
  expertParallelSize: number
  beta1: number
  beta2: number
  epsilon: number
  weightDecay: number
  clip: number
}

export type Initial = { kind: 'normal'; std: number } | { kind: 'zeros' } | { kind: 'ones' }

/** A parameter of the whole model. The name is global and stable: checkpoints use it. */
export interface Tensor {
  name: string
  /** Global shape; tensors of kind `expert` have the experts of the world as their first axis. */
  shape: readonly number[]
  kind: 'dense' | 'expert'
  /** True for matrices: decoupled weight decay applies. */
  decay: boolean
  init: Initial
  /** Gradients of one bucket are summed over the ranks together. */
  bucket: string
}

/** A range of elements of the global tensor, row-major. */
export interface Slice {
  start: number
  count: number
}

type SpecFields = Pick<ScMoEJobSpec, 'model' | 'training' | 'parallelism'>

/** Throws `ModelError` where fields contradict each other. `worldSize` is the number of ranks. */
export function modelConfig(spec: SpecFields, worldSize: number): ModelConfig {
  const { model, training } = spec
  const expertParallelSize = spec.parallelism.expertParallelSize ?? worldSize
  const topK = model.topK ?? (model.kind === 'Top2' ? 2 : 1)
  demandMultiple('model.blocks', model.blocks, 2)
  demandMultiple('model.hiddenSize', model.hiddenSize, model.heads, 'model.heads')
  demandMultiple('model.experts', model.experts, expertParallelSize, 'parallelism.expertParallelSize')
  demandMultiple('the number of ranks', worldSize, expertParallelSize, 'parallelism.expertParallelSize')
  demandMultiple('training.globalBatchSequences', training.globalBatchSequences, worldSize, 'the number of ranks')
  if (topK > model.experts)
    throw new ModelError(`model.topK is ${topK} but model.experts is ${model.experts}; raise model.experts`)
  const batch = training.globalBatchSequences / worldSize
  const tokens = batch * training.sequenceLength
  const capacity = Math.ceil((number('model.capacityFactor', model.capacityFactor) * tokens * topK) / model.experts)
  return {
    kind: model.kind,
    pairs: model.blocks / 2,
    dim: model.hiddenSize,
    heads: model.heads,
    feedForward: model.feedForwardSize,
    vocabulary: VOCABULARY,
    experts: model.experts,
    topK,
    capacity: Math.min(capacity, tokens),
    auxCoefficient: number('model.balanceLossCoefficient', model.balanceLossCoefficient),
    batch,
    sequence: training.sequenceLength,
    worldSize,
    expertParallelSize,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: number('training.optimizer.weightDecay', training.optimizer.weightDecay),
    clip: number('training.optimizer.gradientClipNorm', training.optimizer.gradientClipNorm),
  }
}

/**
 * Every parameter in a fixed order:
 *   wte [V,d], wpe [T,d], norm.{gamma,beta} [d], head.weight [V,d], head.bias [V], and per block i
 *   blocks.i.attn.norm.*, blocks.i.attn.qkv.{weight [3d,d], bias}, blocks.i.attn.proj.{weight [d,d], bias}
 *   even i: blocks.i.mlp.norm.*, blocks.i.mlp.up.{weight [F,d], bias}, blocks.i.mlp.down.{weight [d,F], bias}
 *   odd i:  blocks.i.moe.norm.* (the one MoE input norm; ScMoE: LN' at the shortcut position),
 *           blocks.i.moe.router.weight [E,d], blocks.i.moe.experts.up.{weight [E,F,d], bias [E,F]}, .down.{weight [E,d,F], bias [E,d]}
 *           with a shared expert: blocks.i.shared.up.*, .down.*; ScMoE also blocks.i.shared.norm.*, blocks.i.shared.gate.weight [d]
 * Rank r holds experts floor(r % P) * E/P .. + E/P - 1 of the expert tensors and all of the others.
 */
export function tensors(config: ModelConfig): Tensor[] {
  const { dim, vocabulary, sequence, pairs } = config
  const list: Tensor[] = [
    matrix('wte', [vocabulary, dim], 'embedding'),
    matrix('wpe', [sequence, dim], 'embedding'),
    ...normTensors('norm', dim, 'head'),
    ...linearTensors('head', [vocabulary, dim], 'head'),
  ]
  for (let pair = 0; pair < pairs; pair++) list.push(...pairTensors(config, pair))
  return list
}

const STD = 0.02
const matrix = (name: string, shape: number[], bucket: string, std = STD): Tensor => ({
  name,
  shape,
  kind: 'dense',
  decay: true,
  init: { kind: 'normal', std },
  bucket,
})
const vector = (name: string, size: number, bucket: string, kind: 'zeros' | 'ones' = 'zeros'): Tensor => ({
  name,
  shape: [size],
  kind: 'dense',
  decay: false,
  init: { kind },
  bucket,
})
const normTensors = (name: string, dim: number, bucket: string) => [
  vector(`${name}.gamma`, dim, bucket, 'ones'),
  vector(`${name}.beta`, dim, bucket),
]
const linearTensors = (name: string, shape: [out: number, input: number], bucket: string, std = STD) => [
  matrix(`${name}.weight`, shape, bucket, std),
  vector(`${name}.bias`, shape[0], bucket),
]

function pairTensors(config: ModelConfig, pair: number): Tensor[] {
  const { dim, feedForward, experts, kind } = config
  const bucket = `pair${pair}`
  // GPT-2: projections into the residual stream start smaller by the square root of their number.
  const residualStd = STD / Math.sqrt(4 * config.pairs)
  const attention = (block: string) => [
    ...normTensors(`${block}.attn.norm`, dim, bucket),
    ...linearTensors(`${block}.attn.qkv`, [3 * dim, dim], bucket),
    ...linearTensors(`${block}.attn.proj`, [dim, dim], bucket, residualStd),
  ]
  const feedForwardTensors = (name: string) => [
    ...linearTensors(`${name}.up`, [feedForward, dim], bucket),
    ...linearTensors(`${name}.down`, [dim, feedForward], bucket, residualStd),
  ]
  const expert = (tensor: Tensor): Tensor => ({
    ...tensor,
    shape: [experts, ...tensor.shape],
    kind: 'expert',
    bucket: `${bucket}.experts`,
  })
  const dense = `blocks.${2 * pair}`
  const sparse = `blocks.${2 * pair + 1}`
  const list = [
    ...attention(dense),
    ...normTensors(`${dense}.mlp.norm`, dim, bucket),
    ...feedForwardTensors(`${dense}.mlp`),
    ...attention(sparse),
    ...normTensors(`${sparse}.moe.norm`, dim, bucket),
    matrix(`${sparse}.moe.router.weight`, [experts, dim], bucket),
    ...feedForwardTensors(`${sparse}.moe.experts`).map(expert),
  ]
  if (kind !== 'Top2') list.push(...feedForwardTensors(`${sparse}.shared`))
  if (kind === 'ScMoE') {
    const gate = { ...matrix(`${sparse}.shared.gate.weight`, [dim], bucket), decay: false }
    list.push(...normTensors(`${sparse}.shared.norm`, dim, bucket), gate)
  }
  return list
}

export const gradientOf = (tensor: string) => `${tensor}.grad`
/** AdamW's first moment. */
export const meanOf = (tensor: string) => `${tensor}.m`
/** AdamW's second moment. */
export const varianceOf = (tensor: string) => `${tensor}.v`

export const elementsOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)

/** The elements of `tensor` that `rank` holds: consecutive, because experts are the first axis. */
export function sliceOf(tensor: Tensor, config: ModelConfig, rank: number): Slice {
  const total = elementsOf(tensor.shape)
  if (tensor.kind === 'dense') return { start: 0, count: total }
  const count = total / config.expertParallelSize
  return { start: (rank % config.expertParallelSize) * count, count }
}

/** Parameters of the whole model, of one rank, and those one token passes through. */
export function parameterCounts(config: ModelConfig): { total: number; perRank: number; active: number } {
  const counts = { total: 0, perRank: 0, active: 0 }
  for (const tensor of tensors(config)) {
    const size = elementsOf(tensor.shape)
    counts.total += size
    counts.perRank += sliceOf(tensor, config, 0).count
    counts.active += tensor.kind === 'dense' ? size : (size / config.experts) * config.topK
  }
  return counts
}

/**
 * Initial values of a slice. Counter-based: element i depends on the tensor's name, the seed and i alone, so any split over any
 * number of ranks gives the same model. Normal values by Box-Muller, one pair for elements 2j and 2j + 1.
 */
export function initialise(tensor: Pick<Tensor, 'name' | 'init'>, seed: number, slice: Slice): Float32Array {
  const { init } = tensor
  const values = new Float32Array(slice.count)
  if (init.kind !== 'normal') return init.kind === 'ones' ? values.fill(1) : values
  const first = mix(hash(tensor.name) ^ seed)
  const second = mix(first + 0x9e3779b9 + seed)
  for (let at = 0; at < slice.count; ) {
    const pair = Math.floor((slice.start + at) / 2)
    const low = pair >>> 0
    const high = Math.floor(pair / 2 ** 32)
    const radius = Math.sqrt(-2 * Math.log((mix(mix(low + first) ^ (second + high)) + 0.5) / 2 ** 32)) * init.std
    const angle = (mix(mix(low + second) ^ (first - high)) / 2 ** 32) * 2 * Math.PI
    if ((slice.start + at) % 2 === 0) values[at++] = radius * Math.cos(angle)
    if (at < slice.count) values[at++] = radius * Math.sin(angle)
  }
  return values
}

/** A bijection on 32 bits whose every output bit depends on every input bit. */
function mix(value: number): number {
  let x = value | 0
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d)
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b)
  return (x ^ (x >>> 16)) >>> 0
}

/** FNV-1a. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h >>> 0
}

function number(field: string, text: string): number {
  const value = Number(text)
  if (!Number.isFinite(value)) throw new ModelError(`${field} is "${text}"; write a decimal number such as "0.5"`)
  return value
}

function demandMultiple(field: string, value: number, divisor: number, ofField = String(divisor)): void {
  if (value % divisor !== 0)
    throw new ModelError(
      `${field} is ${value}, which is not a multiple of ${ofField}${ofField === String(divisor) ? '' : ` (${divisor})`}`,
    )
}

// The model as data: numbers of one job, and the list of its tensors with shape, initial values and which rank holds what. Pure.
// Architecture: arXiv 2404.05019. A unit is `blocksPerUnit` blocks in a row, the last of which carries the mixture of experts.

import { expertsPerToken, hasSharedExpert, type ResolvedModel, resolveModel } from '../crds/presets.ts'
import type { ScMoEJobSpec } from '../crds/scmoejob.ts'

/** Everything the program depends on, as numbers and words. Equal on all ranks. */
export interface ModelConfig
  extends Pick<
    ResolvedModel,
    | 'kind'
    | 'shortcutPosition'
    | 'coefficientGate'
    | 'heads'
    | 'keyValueHeads'
    | 'tieEmbeddings'
    | 'norm'
    | 'activation'
    | 'positions'
    | 'experts'
    | 'topK'
  > {
  units: number
  /** n: the last of n blocks carries the MoE layer; with kind Dense none does. */
  blocksPerUnit: number
  dim: number
  feedForward: number
  vocabulary: number
  bias: boolean
  /** Rotary angles of position t: t * ropeBase^(-2j/head size). */
  ropeBase: number
  /** Rows one rank may send to one expert in one micro-batch. */
  capacity: number
  auxCoefficient: number
  zCoefficient: number
  /** Of activations, their gradients, and the weights that products read; all else is float32. */
  precision: 'float32' | 'bfloat16'
  /** Backward computes activations again instead of keeping them. */
  recompute: boolean
  /** Forward and backward passes in one optimizer step. */
  microBatches: number
  /** Sequences of this rank in one micro-batch. */
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
  /** Gradients of one bucket are summed over the ranks together, as soon as the last of them is complete. */
  bucket: string
}

/** A range of elements of the global tensor, row-major. */
export interface Slice {
  start: number
  count: number
}

type SpecFields = Pick<ScMoEJobSpec, 'model' | 'training' | 'parallelism'>

/**
 * The numbers of a job that breaks no rule of crds/rules.ts. `worldSize` is the number of ranks,
 * which may differ from what spec.workers says. Throws an Error if a rule was not asked.
 */
export function modelConfig(spec: SpecFields, worldSize: number): ModelConfig {
  const { training } = spec
  const model = resolveModel(spec.model)
  const batch = quotient(
    training.globalBatchSequences,
    worldSize * training.microBatches,
    'training.globalBatchSequences',
  )
  const {
    kind,
    shortcutPosition,
    coefficientGate,
    heads,
    keyValueHeads,
    tieEmbeddings,
    norm,
    activation,
    positions,
    experts,
    topK,
  } = model
  return {
    kind,
    shortcutPosition,
    coefficientGate,
    heads,
    keyValueHeads,
    tieEmbeddings,
    norm,
    activation,
    positions,
    experts,
    topK,
    units: quotient(model.blocks, model.moeLayerFrequency, 'model.blocks'),
    blocksPerUnit: model.moeLayerFrequency,
    dim: model.hiddenSize,
    feedForward: model.feedForwardSize,
    vocabulary: model.vocabularySize,
    bias: model.biases,
    ropeBase: 10_000,
    capacity: capacityOf(model, batch * training.sequenceLength),
    auxCoefficient: Number(model.balanceLossCoefficient),
    zCoefficient: Number(model.routerZLossCoefficient),
    precision: training.precision,
    recompute: training.recompute,
    microBatches: training.microBatches,
    batch,
    sequence: training.sequenceLength,
    worldSize,
    expertParallelSize: spec.parallelism.expertParallelSize ?? worldSize,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: Number(training.optimizer.weightDecay),
    clip: Number(training.optimizer.gradientClipNorm),
  }
}

/** The rule about `field` says that `divisor` divides `value`. */
function quotient(value: number, divisor: number, field: string): number {
  if (value % divisor !== 0)
    throw new Error(
      `${value} is not a multiple of ${divisor}: the job breaks the rule about spec.${field} in crds/rules.ts`,
    )
  return value / divisor
}

/** A token chooses an expert once, so that all of a rank's tokens are always enough. */
function capacityOf({ capacityFactor, topK, experts }: ResolvedModel, tokens: number): number {
  if (capacityFactor === null) return tokens
  const capacity = Math.ceil((Number(capacityFactor) * tokens * topK) / experts)
  return Math.min(capacity, tokens)
}

/** Blocks of a unit, and which of the model's blocks they are. */
export function blocksOf(
  { blocksPerUnit }: Pick<ModelConfig, 'blocksPerUnit'>,
  unit: number,
): { dense: number[]; preceding: number | undefined; last: number } {
  const first = unit * blocksPerUnit
  const last = first + blocksPerUnit - 1
  const preceding = blocksPerUnit > 1 ? last - 1 : undefined
  return { dense: Array.from({ length: Math.max(0, blocksPerUnit - 2) }, (_, i) => first + i), preceding, last }
}

/**
 * Every parameter in a fixed order. V vocabulary, T sequence, d width, F feed-forward width (U = F, or 2F with SwiGLU, gate rows first), E experts,
 * Q = (heads + 2 keyValueHeads) * d / heads:
 *   wte [V,d], wpe [T,d] (learned positions), norm.gamma, norm.beta [d], head.weight [V,d], head.bias [V] (tied embeddings: neither; wte is used);
 *   block i: blocks.i.attn.norm.*, blocks.i.attn.qkv.{weight [Q,d], bias}, blocks.i.attn.proj.{weight [d,d], bias};
 *   without MoE: blocks.i.mlp.norm.*, blocks.i.mlp.up.{weight [U,d], bias}, blocks.i.mlp.down.{weight [d,F], bias};
 *   with MoE: blocks.i.moe.norm.* (of the routed experts' input; DGMoE: of both), blocks.i.moe.router.weight [E,d],
 *     blocks.i.moe.experts.up.{weight [E,U,d], bias [E,U]}, .down.{weight [E,d,F], bias [E,d]};
 *     with a shared expert blocks.i.shared.up.*, .down.*, its coefficient gate blocks.i.shared.gate.weight [d] (CG1) or [2,d] (CG2); ScMoE also
 *     blocks.i.shared.norm.*.
 * RMSNorm has no beta; `bias: false` leaves out all biases. Rank r holds experts (r % P) * E/P .. + E/P - 1 of the expert tensors and all of the others.
 */
export function tensors(config: ModelConfig): Tensor[] {
  const { dim, vocabulary, sequence, units, tieEmbeddings } = config
  const list: Tensor[] = [matrix('wte', [vocabulary, dim], 'embedding')]
  if (config.positions === 'Learned') list.push(matrix('wpe', [sequence, dim], 'embedding'))
  list.push(...normTensors(config, 'norm', 'head'))
  if (!tieEmbeddings) list.push(...linearTensors(config, 'head', { shape: [vocabulary, dim], bucket: 'head' }))
  for (let unit = 0; unit < units; unit++) list.push(...unitTensors(config, unit))
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
const normTensors = ({ dim, norm }: ModelConfig, name: string, bucket: string) => {
  const gamma = vector(`${name}.gamma`, dim, bucket, 'ones')
  return norm === 'RMSNorm' ? [gamma] : [gamma, vector(`${name}.beta`, dim, bucket)]
}
const linearTensors = (
  { bias }: ModelConfig,
  name: string,
  { shape, bucket, std = STD }: { shape: [out: number, input: number]; bucket: string; std?: number },
) => {
  const weight = matrix(`${name}.weight`, shape, bucket, std)
  return bias ? [weight, vector(`${name}.bias`, shape[0], bucket)] : [weight]
}

/** GPT-2: projections into the residual stream start smaller by the square root of their number, two to a block. */
const residualStd = ({ units, blocksPerUnit }: ModelConfig) => STD / Math.sqrt(2 * units * blocksPerUnit)

function attentionTensors(config: ModelConfig, block: number): Tensor[] {
  const { dim, heads, keyValueHeads } = config
  const name = `blocks.${block}.attn`
  const proj = `${name}.proj`
  const rows = ((heads + 2 * keyValueHeads) * dim) / heads
  return [
    ...normTensors(config, `${name}.norm`, name),
    ...linearTensors(config, `${name}.qkv`, { shape: [rows, dim], bucket: name }),
    ...linearTensors(config, proj, { shape: [dim, dim], bucket: proj, std: residualStd(config) }),
  ]
}

function feedForwardTensors(config: ModelConfig, name: string): Tensor[] {
  const { dim, feedForward, activation } = config
  const down = `${name}.down`
  const up = activation === 'SwiGLU' ? 2 * feedForward : feedForward
  return [
    ...linearTensors(config, `${name}.up`, { shape: [up, dim], bucket: name }),
    ...linearTensors(config, down, { shape: [dim, feedForward], bucket: down, std: residualStd(config) }),
  ]
}

function denseBlockTensors(config: ModelConfig, block: number): Tensor[] {
  const mlp = `blocks.${block}.mlp`
  return [
    ...attentionTensors(config, block),
    ...normTensors(config, `${mlp}.norm`, mlp),
    ...feedForwardTensors(config, mlp),
  ]
}

function unitTensors(config: ModelConfig, unit: number): Tensor[] {
  const { dense, preceding, last } = blocksOf(config, unit)
  const early = [...dense, ...(preceding === undefined ? [] : [preceding])].flatMap(block =>
    denseBlockTensors(config, block),
  )
  if (config.kind === 'Dense') return [...early, ...denseBlockTensors(config, last)]
  return [...early, ...attentionTensors(config, last), ...moeTensors(config, last)]
}

function moeTensors(config: ModelConfig, block: number): Tensor[] {
  const { dim, experts, kind, coefficientGate } = config
  const moe = `blocks.${block}.moe`
  const shared = `blocks.${block}.shared`
  const list = [
    ...normTensors(config, `${moe}.norm`, moe),
    matrix(`${moe}.router.weight`, [experts, dim], moe),
    ...feedForwardTensors(config, `${moe}.experts`).map(
      (tensor): Tensor => ({ ...tensor, shape: [experts, ...tensor.shape], kind: 'expert' }),
    ),
  ]
  if (!hasSharedExpert(kind)) return list
  list.push(...feedForwardTensors(config, shared))
  if (kind === 'ScMoE') list.push(...normTensors(config, `${shared}.norm`, shared))
  if (coefficientGate !== 'DirectAdd') {
    const shape = coefficientGate === 'CG1' ? [dim] : [2, dim]
    list.push({ ...matrix(`${shared}.gate.weight`, shape, shared), decay: false })
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
  const count = quotient(total, config.expertParallelSize, 'parallelism.expertParallelSize')
  return { start: (rank % config.expertParallelSize) * count, count }
}

/** Parameters of the whole model, of one rank, and those one token passes through. */
export function parameterCounts(config: ModelConfig): { total: number; perRank: number; active: number } {
  const counts = { total: 0, perRank: 0, active: 0 }
  const routed = expertsPerToken(config)
  for (const tensor of tensors(config)) {
    const size = elementsOf(tensor.shape)
    counts.total += size
    counts.perRank += sliceOf(tensor, config, 0).count
    counts.active += tensor.kind === 'dense' ? size : (size / config.experts) * routed
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

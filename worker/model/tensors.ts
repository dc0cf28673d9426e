// The tensors of a model: their names, shapes and initial distributions, and the part of each that
// a rank holds. Pure.

import { expertsPerToken, hasSharedExpert } from '../../crds/presets.ts'
import { blocksOf, type ModelConfig, quotient } from './config.ts'

export type Initial = { kind: 'normal'; std: number } | { kind: 'zeros' } | { kind: 'ones' }

/** A parameter of the whole model. Its name is stable, because checkpoints use it. */
export interface Tensor {
  name: string
  /** Shape over all ranks. The first axis of a tensor of kind `expert` is the experts. */
  shape: readonly number[]
  kind: 'dense' | 'expert'
  /** Whether decoupled weight decay applies, as it does to matrices. */
  decay: boolean
  init: Initial
  /**
   * Gradients of one bucket are summed over the ranks together, when the last of them is complete.
   */
  bucket: string
}

/** A range of elements of a whole tensor in row-major order. */
export interface Slice {
  start: number
  count: number
}

/**
 * Every parameter in a fixed order. V is the vocabulary, T the sequence length, d the width, F the
 * feed-forward width, E the number of experts, Q = (heads + 2 keyValueHeads) * d / heads, and U = F
 * or, with SwiGLU, 2F (gate rows first).
 *
 *   wte [V,d], wpe [T,d], norm.gamma [d], norm.beta [d], head.weight [V,d], head.bias [V]
 *   block i:
 *     blocks.i.attn.norm.*, blocks.i.attn.qkv.{weight [Q,d], bias},
 *     blocks.i.attn.proj.{weight [d,d], bias}
 *   block i without MoE:
 *     blocks.i.mlp.norm.*, blocks.i.mlp.up.{weight [U,d], bias},
 *     blocks.i.mlp.down.{weight [d,F], bias}
 *   block i with MoE:
 *     blocks.i.moe.norm.* (of the routed experts' input, for DGMoE of both inputs)
 *     blocks.i.moe.router.weight [E,d]
 *     blocks.i.moe.experts.up.{weight [E,U,d], bias [E,U]}, .down.{weight [E,d,F], bias [E,d]}
 *     with a shared expert: blocks.i.shared.up.*, .down.*, and as coefficient gate
 *       blocks.i.shared.gate.weight [d] (CG1) or [2,d] (CG2); ScMoE also has blocks.i.shared.norm.*
 *
 * wpe exists only with learned positions, and the head only without tied embeddings, which use wte
 * instead. RMSNorm has no beta, and `bias: false` leaves out all biases. With P =
 * expertParallelSize, rank r holds the E/P experts from (r % P) * E/P on, and all of every other
 * tensor.
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

/**
 * As in GPT-2, projections into the residual stream start smaller by the square root of their
 * number. Each block has two. /
 */
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
/** Name of AdamW's first moment. */
export const meanOf = (tensor: string) => `${tensor}.m`
/** Name of AdamW's second moment. */
export const varianceOf = (tensor: string) => `${tensor}.v`

export const elementsOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)

/** The elements of `tensor` that `rank` holds. They are consecutive: experts are the first axis. */
export function sliceOf(tensor: Tensor, config: ModelConfig, rank: number): Slice {
  const total = elementsOf(tensor.shape)
  if (tensor.kind === 'dense') return { start: 0, count: total }
  const { experts, expertParallelSize } = config
  const held = quotient(experts, expertParallelSize, 'parallelism.expertParallelSize')
  const count = (total / experts) * held
  return { start: (rank % expertParallelSize) * count, count }
}

/** Parameters of the whole model, of one rank, and of the path of one token (`active`). */
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

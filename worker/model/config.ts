// The numbers of a model, from a job that breaks no rule. Pure. The architecture is that of arXiv
// 2404.05019. A unit is `blocksPerUnit` blocks in a row, the last of which has the MoE layer.

import { type ResolvedModel, resolveModel } from '../../crds/presets.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'

/** All that the program depends on, as numbers and words. It is the same on all ranks. */
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
  /** Blocks of a unit, the last of which has the MoE layer. With kind Dense no block has one. */
  blocksPerUnit: number
  dim: number
  feedForward: number
  vocabulary: number
  bias: boolean
  /** The rotary angles of position t are t * ropeBase^(-2j / head size). */
  ropeBase: number
  /** Rows that one rank may send to one expert in one micro-batch. */
  capacity: number
  auxCoefficient: number
  zCoefficient: number
  /**
   * Type of activations, their gradients and the weights that products read. The rest is float32.
   */
  precision: 'float32' | 'bfloat16'
  /** Whether the backward pass computes activations again instead of keeping them. */
  recompute: boolean
  /** Forward and backward passes in one optimizer step. */
  microBatches: number
  /** Sequences of this rank in one micro-batch. */
  batch: number
  /** Tokens of each sequence. */
  sequence: number
  worldSize: number
  expertParallelSize: number
  beta1: number
  beta2: number
  epsilon: number
  weightDecay: number
  clip: number
}

type SpecFields = Pick<ScMoEJobSpec, 'model' | 'training' | 'parallelism'>

/**
 * The numbers of a job that breaks no rule of crds/rules.ts. `worldSize` is the number of ranks,
 * which may differ from spec.workers. Throws an Error, which is a defect, if the job breaks a rule.
 * /
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

/** The quotient of two integers. The rule about `field` says that `divisor` divides `value`. */
export function quotient(value: number, divisor: number, field: string): number {
  if (value % divisor !== 0)
    throw new Error(
      `${value} is not a multiple of ${divisor}: the job breaks the rule about spec.${field} in crds/rules.ts`,
    )
  return value / divisor
}

/** Never more than the tokens of a rank, because a token chooses an expert only once. */
function capacityOf({ capacityFactor, topK, experts }: ResolvedModel, tokens: number): number {
  if (capacityFactor === null) return tokens
  const capacity = Math.ceil((Number(capacityFactor) * tokens * topK) / experts)
  return Math.min(capacity, tokens)
}

/**
 * Numbers of a unit's blocks, counted over the model: `last` has the MoE layer, `preceding` comes
 * before it, and `dense` come before both.
 */
export function blocksOf(
  { blocksPerUnit }: Pick<ModelConfig, 'blocksPerUnit'>,
  unit: number,
): { dense: number[]; preceding: number | undefined; last: number } {
  const first = unit * blocksPerUnit
  const last = first + blocksPerUnit - 1
  const preceding = blocksPerUnit > 1 ? last - 1 : undefined
  return { dense: Array.from({ length: Math.max(0, blocksPerUnit - 2) }, (_, i) => first + i), preceding, last }
}

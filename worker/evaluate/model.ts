// The model of an evaluation, on one rank: that of a job, or that of a checkpoint's index; and the
// batches into which its sequences are divided. Pure.

import { hasSharedExpert, hasShortcut } from '../../crds/presets.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { brokenRules, brokenText } from '../../crds/rules.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import type { CheckpointIndex } from '../checkpoint/contents.ts'
import { BUFFER, emitEvaluate, emitMicroBatch } from '../emit/emit.ts'
import { issuesText } from '../failure.ts'
import { type ModelConfig, modelConfig } from '../model/config.ts'
import type { Emitted } from '../program/program.ts'

export type ModelSpec = Pick<ScMoEJobSpec, 'model' | 'training'>

/** Sequences at a time if neither the job nor the user says how many. */
const BATCH = 8

/**
 * A spec with the model of an index. An index has only the fields that shape tensors. So no token
 * is dropped here, and the coefficients of the balance and z-losses have their defaults. Throws an
 * error with the fields of a model that no job can have.
 */
export function specOfIndex({ model }: Pick<CheckpointIndex, 'model'>): ScMoEJobSpec {
  const parsed = ScMoEJobSpec.safeParse(inputOf(model))
  if (!parsed.success) throw new Error(issuesText(parsed.error, inputOf(model), 'spec'))
  const broken = brokenRules(parsed.data, 'checkpoint')
  if (broken.length > 0) throw new Error(brokenText(broken))
  return parsed.data
}

function inputOf(model: CheckpointIndex['model']) {
  return {
    model: {
      kind: model.kind,
      ...(hasShortcut(model.kind) && { shortcutPosition: model.shortcutPosition }),
      ...(hasSharedExpert(model.kind) && { coefficientGate: model.coefficientGate }),
      blocks: model.units * model.blocksPerUnit,
      moeLayerFrequency: model.blocksPerUnit,
      hiddenSize: model.dim,
      heads: model.heads,
      keyValueHeads: model.keyValueHeads,
      feedForwardSize: model.feedForward,
      vocabularySize: model.vocabulary,
      tieEmbeddings: model.tieEmbeddings,
      biases: model.bias,
      norm: model.norm,
      activation: model.activation,
      positions: model.positions,
      experts: model.experts,
      ...(model.kind !== 'Dense' && { topK: model.topK }),
      capacityFactor: 'none',
    },
    training: { steps: 1, sequenceLength: model.sequence },
  }
}

/**
 * Sequences that a rank of the job computes at a time. The capacity of the experts depends on it,
 * and so do the tokens that are dropped.
 */
export function batchOf({ training, workers }: Pick<ScMoEJobSpec, 'training' | 'workers'>): number {
  return training.globalBatchSequences / (worldSizeOf({ workers }) * training.microBatches)
}

/** The model in float32, because one CPU rank computes it, whatever precision the job trains in. */
export function modelOf({ model, training }: ModelSpec, batch: number): ModelConfig {
  const one = { ...training, globalBatchSequences: batch, microBatches: 1, precision: 'float32' as const }
  return modelConfig({ model, training: one, parallelism: { expertParallelSize: 1 } }, 1)
}

export interface Batch {
  /** Index of its first sequence. */
  first: number
  /** Number of sequences. */
  count: number
}

/** All sequences in order, `batch` at a time. The last batch has those that are left. */
export function batchesOf(sequences: number, batch = BATCH): Batch[] {
  const count = Math.min(batch, sequences)
  return Array.from({ length: Math.ceil(sequences / count) }, (_, i) => ({
    first: i * count,
    count: Math.min(count, sequences - i * count),
  }))
}

export interface BatchShape {
  /** Sequences in this batch. */
  count: number
  /** Sequences in the largest batch. */
  most: number
  /** Sequences in all batches. */
  sequences: number
  /** Whether there is a backward pass too, which adds to the gradients. */
  gradients: boolean
}

export interface BatchProgram {
  emitted: Emitted
  model: ModelConfig
  /**
   * Weight of this batch's losses in the mean over all sequences. The gradients that the program
   * adds are weighted already.
   */
  weight: number
}

/**
 * The forward pass, or forward and backward pass, of one batch. It declares only the persistent
 * memory that it uses, and tokens for the largest batch, so that batches of all sizes have the same
 * persistent memory.
 */
export function emitBatch(spec: ModelSpec, { count, most, sequences, gradients }: BatchShape): BatchProgram {
  const model = modelOf(spec, count)
  // A micro-batch adds its part to losses and gradients. The implied number of micro-batches need
  // not be an integer.
  const whole = gradients
    ? emitMicroBatch({ ...model, microBatches: sequences / count }, 0, false)
    : emitEvaluate(model, 0)
  const used = new Set(whole.ops.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]))
  const buffers = whole.buffers
    .filter(({ name, arena }) => arena === 'transient' || used.has(name))
    .map(buffer => (buffer.name === BUFFER.tokens ? { ...buffer, elements: most * (model.sequence + 1) } : buffer))
  const emitted = { ...whole, name: `batch of ${count}`, buffers }
  return { emitted, model, weight: gradients ? 1 : count / sequences }
}

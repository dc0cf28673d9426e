// The model of an evaluation: that of a job, or of a checkpoint's index, on one rank. And how its sequences are cut into batches. Pure.

import { hasSharedExpert, hasShortcut } from '../../crds/presets.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import type { CheckpointIndex } from '../checkpoint/contents.ts'
import { type ModelConfig, modelConfig } from '../model.ts'
import { BUFFER, emitEvaluate, emitMicroBatch } from '../program/emit.ts'
import type { Emitted } from '../program/program.ts'

export type ModelSpec = Pick<ScMoEJobSpec, 'model' | 'training'>

/** Where neither a job nor the user says how many sequences are computed at a time. */
const BATCH = 8

/**
 * A spec with this model. An index does not say what shapes no tensor: here no token is dropped, and the coefficients of the balance and z
 * losses have their defaults.
 */
export function specOfIndex({ model }: Pick<CheckpointIndex, 'model'>): ScMoEJobSpec {
  return ScMoEJobSpec.parse({
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
  })
}

/** Sequences that a rank of the job computes at a time; capacity, and so which tokens are dropped, depends on it. */
export function batchOf({ training, workers }: Pick<ScMoEJobSpec, 'training' | 'workers'>): number {
  return training.globalBatchSequences / (worldSizeOf({ workers }) * training.microBatches)
}

/** Computed in float32 on one CPU rank, whatever precision the job trains in. */
export function modelOf({ model, training }: ModelSpec, batch: number): ModelConfig {
  const one = { ...training, globalBatchSequences: batch, microBatches: 1, precision: 'float32' as const }
  return modelConfig({ model, training: one, parallelism: { expertParallelSize: 1 } }, 1)
}

export interface Batch {
  /** First sequence. */
  first: number
  /** Sequences. */
  count: number
}

/** All sequences in order, `batch` at a time; the last batch is what is left. */
export function batchesOf(sequences: number, batch = BATCH): Batch[] {
  const count = Math.min(batch, sequences)
  return Array.from({ length: Math.ceil(sequences / count) }, (_, i) => ({
    first: i * count,
    count: Math.min(count, sequences - i * count),
  }))
}

export interface BatchShape {
  /** Sequences of the batch, of the largest batch, and of all batches. */
  count: number
  most: number
  sequences: number
  /** Backward too: gradients are added to what is there. */
  gradients: boolean
}

export interface BatchProgram {
  emitted: Emitted
  model: ModelConfig
  /** What the losses of a run count in the mean over all sequences; the gradients it adds are weighed already. */
  weight: number
}

/**
 * Forward pass, or forward and backward, of one batch. Declares no persistent memory that it does not use, but tokens for the largest batch,
 * so that batches of all sizes have the same.
 */
export function emitBatch(spec: ModelSpec, { count, most, sequences, gradients }: BatchShape): BatchProgram {
  const model = modelOf(spec, count)
  // As a micro-batch it adds its part to losses and gradients: of so many micro-batches, which need not be a whole number, would all be made.
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

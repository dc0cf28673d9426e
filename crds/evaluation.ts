// The messages between `scmoe eval` and the process that evaluates.

import { z } from 'zod'
import { ScMoEJobSpec } from './scmoejob.ts'

export const EvaluationOrder = z.strictObject({
  /** A checkpoint, a folder of checkpoints, an output folder, or safetensors files. */
  checkpoint: z.string(),
  /** File of tokens. */
  tokens: z.string(),
  /**
   * Weights of another program need it. The index of a checkpoint holds everything but the
   * coefficients of the losses and the capacity.
   */
  spec: ScMoEJobSpec.optional(),
  /** Type of the tokens in the file. Default: what the checkpoint was trained on. */
  type: ScMoEJobSpec.shape.data.unwrap().shape.tokens.unwrap().optional(),
  /** Number of sequences from the beginning of the file. Default: all of the file. */
  sequences: z.int().min(1).optional(),
  /** Sequences at a time. Default: as many as a rank of the job computes, otherwise 8. */
  batch: z.int().min(1).optional(),
  /** Only losses, without a backward pass. */
  lossOnly: z.boolean().optional(),
  /** File for the gradients. */
  gradients: z.string().optional(),
  threads: z.int().min(1).optional(),
})
export type EvaluationOrder = z.infer<typeof EvaluationOrder>

/** Means over all tokens predicted. */
export const Evaluation = z.object({
  /** The folder or the files that were read. */
  checkpoint: z.string(),
  /** Optimizer steps done; unknown for weights of another program. */
  step: z.number().optional(),
  /** The file that was read, how, who says so, and the tokens in it. */
  data: z.object({ path: z.string(), type: z.string(), because: z.string(), tokens: z.number() }),
  vocabulary: z.number(),
  /** The type that the model was computed in, whatever it was trained in. */
  precision: z.literal('float32'),
  sequences: z.number(),
  sequenceLength: z.number(),
  batchSequences: z.number(),
  /** Minimised by training: crossEntropy + auxCoefficient * auxLoss + zCoefficient * zLoss. */
  loss: z.number(),
  crossEntropy: z.number(),
  /** Load-balance losses of all MoE layers, added; absent for a dense model. */
  auxLoss: z.number().optional(),
  auxCoefficient: z.number().optional(),
  /** Router z-losses of all MoE layers, added; absent if the coefficient is 0. */
  zLoss: z.number().optional(),
  zCoefficient: z.number().optional(),
  /** Norm of the gradient of `loss`, before clipping; absent with `lossOnly`. */
  gradientNorm: z.number().optional(),
  /** File with the gradients. */
  gradients: z.string().optional(),
})
export type Evaluation = z.infer<typeof Evaluation>

/** Sequences that are done, and all. */
export const EvaluationProgress = z.object({ done: z.number(), sequences: z.number() })
export type EvaluationProgress = z.infer<typeof EvaluationProgress>

/**
 * Sent by the process: how far it is, and at the end the result or the reason why there is none.
 */
export const EvaluationMessage = z.union([
  z.object({ result: Evaluation }),
  z.object({ error: z.string() }),
  EvaluationProgress,
])
export type EvaluationMessage = z.infer<typeof EvaluationMessage>

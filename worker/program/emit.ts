// The two programs of a job, as flat lists of ops over named buffers. The order defines the numbers; where ops run is the schedule's business.

import type { ModelConfig } from '../model.ts'
import type { Emitted } from './program.ts'

/** Persistent buffers that JavaScript writes before a run or reads after it, beside the tensors of model.ts. */
export const BUFFER = {
  /** i32 [B, T+1]: inputs are the first T columns, targets the last T. */
  tokens: 'tokens',
  /** f32 [4]: learning rate, 1 - beta1^t, 1 - beta2^t, 0. */
  hyper: 'hyper',
  /** f32 [1]: cross entropy, mean over the world's tokens. */
  loss: 'loss',
  /** f32 [1]: global gradient norm before clipping (train only). */
  norm: 'norm',
  /** f32 [1]: load-balance loss of a pair, without its coefficient, of the whole world. */
  aux: (pair: number) => `pair${pair}.aux`,
} as const

/** Zero gradients, forward, backward, sum over ranks, norm, clip, AdamW. One run is one optimizer step. */
export function emitTrain(config: ModelConfig, rank: number): Emitted {
  throw new Error(`not yet: ${config.kind} ${rank}`)
}

/** Forward and loss only, over the same persistent buffers. */
export function emitEvaluate(config: ModelConfig, rank: number): Emitted {
  throw new Error(`not yet: ${config.kind} ${rank}`)
}

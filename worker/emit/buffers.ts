// The persistent buffers, other than the tensors of model.ts, that JavaScript writes before a run
// or reads after it.

import type { ModelConfig } from '../model/config.ts'
import type { Emitter } from './emitter.ts'

export const BUFFER = {
  /** i32 [B, T+1]: inputs are the first T columns, targets the last T. */
  tokens: 'tokens',
  /** f32 [4]: learning rate, 1 - beta1^t, 1 - beta2^t, 0. */
  hyper: 'hyper',
  /** f32 [1]: cross entropy, mean over the world's tokens. */
  loss: 'loss',
  /** f32 [1]: global gradient norm before clipping (train only). */
  norm: 'norm',
  /** f32 [1]: load-balance loss of a unit over the whole world, without its coefficient. */
  aux: (unit: number) => `unit${unit}.aux`,
  /** f32 [1]: router z-loss of a unit, without its coefficient. There is none if that is 0. */
  z: (unit: number) => `unit${unit}.z`,
} as const

/** Names of the losses, which all ranks sum after the forward pass. */
export function statistics({ units, kind, zCoefficient }: ModelConfig): string[] {
  if (kind === 'Dense') return [BUFFER.loss]
  const of = (name: (unit: number) => string) => Array.from({ length: units }, (_, unit) => name(unit))
  return [BUFFER.loss, ...of(BUFFER.aux), ...(zCoefficient > 0 ? of(BUFFER.z) : [])]
}

/**
 * Every program of a rank declares the same persistent buffers in the same order, so each buffer
 * has the same place in all programs.
 */
export function declarePersistent(e: Emitter): void {
  const { batch, sequence } = e.config
  e.persistTensors()
  e.persistent(BUFFER.tokens, batch * (sequence + 1), 'i32')
  e.persistent(BUFFER.hyper, 4)
  for (const name of statistics(e.config)) e.persistent(name, 1)
  e.persistent(BUFFER.norm, 1)
}

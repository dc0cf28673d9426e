// Contents that load the experts evenly, whatever the kind: what is compared is schedules, not the luck of an untrained router. Pure.
//
// Experts e have the coordinates j = e modulo E of the model width for themselves. The embedding of token t is raised in those of its first
// expert, t modulo E, and half as much in those of its second, the next one; row e of the router sums those of e. Each rank's tokens are spread
// evenly over the classes modulo E, so each expert gets 1/E of the first choices and of the second.

import type { ModelConfig } from '../../worker/model.ts'

/** High above the initial values of embeddings, 0.02, and what attention adds to them. */
const RAISED = 0.2
const ROUTER = 0.02

const expertOf = (coordinate: number, experts: number) => coordinate % experts

/** Adds to wte [V, d] in place. */
export function plantEmbedding(wte: Float32Array | Int32Array, { dim, experts }: ModelConfig): void {
  for (let i = 0; i < wte.length; i++) {
    const first = Math.floor(i / dim) % experts
    const expert = expertOf(i % dim, experts)
    const raise = expert === first ? RAISED : expert === (first + 1) % experts ? RAISED / 2 : 0
    wte[i] = (wte[i] ?? 0) + raise
  }
}

/** A router's weight [E, d]. */
export function plantedRouter({ dim, experts }: ModelConfig): Float32Array {
  return Float32Array.from({ length: experts * dim }, (_, i) =>
    expertOf(i % dim, experts) === Math.floor(i / dim) ? ROUTER : 0,
  )
}

const uniform = (i: number) => (Math.imul(i + 1, 0x9e3779b1) >>> 0) / 2 ** 32

/** Tokens [B, T+1] of a rank; the vocabulary is a multiple of the number of experts. */
export function plantedTokens({ batch, sequence, experts, vocabulary }: ModelConfig, rank: number): Int32Array {
  const count = batch * (sequence + 1)
  const members = vocabulary / experts
  return Int32Array.from({ length: count }, (_, i) => {
    // Of a row's T inputs every E in a row are one of each class; the last column is a target alone.
    const place = i % (sequence + 1)
    return (place % experts) + experts * Math.floor(uniform(i + rank * count) * members)
  })
}

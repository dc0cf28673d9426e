// Parameters and tokens that load the experts evenly for every kind, so that schedules are compared
// and not the luck of an untrained router. Pure.
//
// Expert e owns the coordinates j of the model width with j = e modulo E. The embedding of token t
// is raised in the coordinates of its first expert, t modulo E, and half as much in those of its
// second, the next one. Row e of the router sums the coordinates of e. Each rank's tokens are
// spread evenly over the classes modulo E, so each expert gets 1/E of the first and of the second
// choices.

import type { ModelConfig } from '../../worker/model/config.ts'

/** High above the initial values of embeddings, 0.02, and above the values that attention adds. */
const RAISED = 0.2
const ROUTER = 0.02

const expertOf = (coordinate: number, experts: number) => coordinate % experts

/** Raises values of wte [V, d] in place. */
export function plantEmbedding(wte: Float32Array | Int32Array, { dim, experts }: ModelConfig): void {
  for (let i = 0; i < wte.length; i++) {
    const first = Math.floor(i / dim) % experts
    const expert = expertOf(i % dim, experts)
    const raise = expert === first ? RAISED : expert === (first + 1) % experts ? RAISED / 2 : 0
    wte[i] = (wte[i] ?? 0) + raise
  }
}

/** The weight [E, d] of a router. */
export function plantedRouter({ dim, experts }: ModelConfig): Float32Array {
  return Float32Array.from({ length: experts * dim }, (_, i) =>
    expertOf(i % dim, experts) === Math.floor(i / dim) ? ROUTER : 0,
  )
}

const uniform = (i: number) => (Math.imul(i + 1, 0x9e3779b1) >>> 0) / 2 ** 32

/** The tokens [B, T+1] of a rank; the vocabulary must be a multiple of the number of experts. */
export function plantedTokens({ batch, sequence, experts, vocabulary }: ModelConfig, rank: number): Int32Array {
  const count = batch * (sequence + 1)
  const members = vocabulary / experts
  return Int32Array.from({ length: count }, (_, i) => {
    // Every E consecutive inputs of a row have one of each class; the last column is only a target.
    const place = i % (sequence + 1)
    return (place % experts) + experts * Math.floor(uniform(i + rank * count) * members)
  })
}

// Finds the experts of each token from its probabilities.

import { constant, type OracleConfig, type Tensor } from './tensor.ts'

/** The routing of N tokens: those of one micro-batch on all ranks, rank by rank. */
export interface Routing {
  /** The first choice of every token. */
  first: number[]
  /** For every choice i, a mask [N, E]. */
  chosen: Tensor[]
  /** The same masks without the choices that are dropped because of capacity. */
  kept: Tensor[]
  /** f_e [1, E]: the share of choices of each expert before any drop. */
  share: Tensor
  dropped: number
}

/**
 * Chooses the k largest probabilities of every row, without the expert that is `taken`. Ties go to
 * the lower index. Places in an expert's capacity are given rank by rank, to the first choices of
 * all tokens before the second ones.
 */
export function routing(probs: readonly number[][], config: OracleConfig, taken: readonly number[] = []): Routing {
  const { experts, topK, capacity, batch, sequence } = config
  const rows = probs.length
  const perRank = batch * sequence
  const order = probs.map((row, n) =>
    row
      .map((value, e) => ({ value, e }))
      .filter(({ e }) => e !== taken[n])
      .toSorted((a, b) => b.value - a.value || a.e - b.e),
  )
  const chosen = Array.from({ length: topK }, () => new Float64Array(rows * experts))
  const kept = Array.from({ length: topK }, () => new Float64Array(rows * experts))
  const share = new Float64Array(experts)
  let dropped = 0
  for (let first = 0; first < rows; first += perRank) {
    const places = new Float64Array(experts)
    for (let i = 0; i < topK; i++)
      for (let n = first; n < first + perRank; n++) {
        const e = order[n]?.[i]?.e ?? 0
        const place = places[e] ?? 0
        places[e] = place + 1
        share[e] = (share[e] ?? 0) + 1 / (rows * topK)
        chosen[i]?.fill(1, n * experts + e, n * experts + e + 1)
        if (place < capacity) kept[i]?.fill(1, n * experts + e, n * experts + e + 1)
        else dropped += 1 / (rows * topK)
      }
  }
  const masks = (list: Float64Array[]) => list.map(values => constant(values, [rows, experts]))
  return {
    first: order.map(row => row[0]?.e ?? 0),
    chosen: masks(chosen),
    kept: masks(kept),
    share: constant(share, [1, experts]),
    dropped,
  }
}

// Which expert each token goes to, from concrete probabilities.

import { constant, type OracleConfig, type Tensor } from './tensor.ts'

/** Of N tokens, all ranks' of one micro-batch, rank by rank. */
export interface Routing {
  /** First choice of every token. */
  first: number[]
  /** Choice i as masks [N, E]. */
  chosen: Tensor[]
  /** The same without what capacity drops. */
  kept: Tensor[]
  /** f_e [1, E]: share of the choices per expert before any drop. */
  share: Tensor
  dropped: number
}

/**
 * The k largest of every row, ties to the lower index, but not the expert that is `taken`; places counted rank by rank, first choices of all
 * tokens before second ones.
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

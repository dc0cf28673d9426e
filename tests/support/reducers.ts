// Sums over ranks that are promises of one process.

import type { Reduce } from '../../worker/ranks/together.ts'

/** The `Reduce` of every rank. Each call waits for the calls of all ranks. */
export function reducers(worldSize: number): Reduce[] {
  let round = { values: [] as Float64Array[], done: Promise.withResolvers<Float64Array>() }
  return Array.from({ length: worldSize }, () => values => {
    const own = round
    own.values.push(values)
    if (own.values.length === worldSize) {
      round = { values: [], done: Promise.withResolvers() }
      own.done.resolve(values.map((_, i) => own.values.reduce((sum, rank) => sum + (rank[i] ?? 0), 0)))
    }
    return own.done.promise
  })
}

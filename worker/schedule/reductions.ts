// Where sums of gradients and losses go between the exchanges of the comm queue: in the order in which they are ready, and never ahead of an
// exchange that is ready no later. The same for every strategy, so that strategies differ only in what they do about the exchanges.

import type { Graph } from './order.ts'
import { isExchange, type Queues, simulate } from './queues.ts'
import type { Times } from './types.ts'

/** How many gaps after the first possible one are tried. */
const GAPS = 6
const PASSES = 2

/** With times, each sum goes where the predicted step is shortest, earlier where equal; without, by a rule. */
export function insertReductions(graph: Graph, queues: Queues, times?: Times): Queues {
  const ready = (index: number) => queues.computeNeeded[index] ?? -1
  const sums = graph.ops
    .flatMap((op, index) => (op.queue === 'comm' && !isExchange(op) ? [index] : []))
    .toSorted((a, b) => ready(a) - ready(b) || a - b)
  const earliest = sums.map(sum => queues.comm.findLastIndex(index => ready(index) <= ready(sum)) + 1)
  const gaps = earliest.map(gap => afterNextExchanges(graph, queues.comm, gap))
  if (times) improve(gaps, earliest, candidate => simulate(withSums(queues, sums, candidate), times))
  return withSums(queues, sums, gaps)
}

/**
 * Two all-to-alls further: after those of the next pair's backward, in whose shadow that pair still computes. Gaps never decrease from sum to
 * sum, because readiness does not.
 */
function afterNextExchanges({ ops }: Graph, exchanges: readonly number[], first: number): number {
  let passed = 0
  for (let gap = first; gap < exchanges.length; gap++) {
    if (passed === 2) return gap
    if (ops[exchanges[gap] ?? -1]?.op === 'all_to_all') passed++
  }
  return exchanges.length
}

/** Moves one sum at a time between its neighbours, from all at the end, as long as the step gets shorter. Changes `gaps`. */
function improve(gaps: number[], earliest: readonly number[], makespan: (gaps: readonly number[]) => number): void {
  const ruled = makespan(gaps)
  const moved = gaps.map(() => gaps.at(-1) ?? 0)
  let best = makespan(moved)
  for (let pass = 0; pass < PASSES; pass++)
    for (const at of moved.keys()) {
      const least = Math.max(earliest[at] ?? 0, moved[at - 1] ?? 0)
      const most = moved[at + 1] ?? moved[at] ?? least
      // From late to early, so that of equal ones the earliest stays.
      for (const gap of tried(least, most).toReversed()) {
        const total = makespan(moved.with(at, gap))
        if (total > best) continue
        best = total
        moved[at] = gap
      }
    }
  if (best <= ruled) gaps.splice(0, gaps.length, ...moved)
}

function tried(least: number, most: number): number[] {
  const near = Array.from({ length: Math.min(GAPS, most - least + 1) }, (_, i) => least + i)
  return near.at(-1) === most ? near : [...near, most]
}

/** Sum i goes before exchange gaps[i]. */
function withSums(queues: Queues, sums: readonly number[], gaps: readonly number[]): Queues {
  const comm: number[] = []
  let next = 0
  for (const [position, exchange] of queues.comm.entries()) {
    while (next < sums.length && (gaps[next] ?? 0) <= position) comm.push(sums[next++] ?? 0)
    comm.push(exchange)
  }
  return { ...queues, comm: [...comm, ...sums.slice(next)] }
}

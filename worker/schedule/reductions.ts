// Where sums of gradients and losses go between the exchanges of the comm queue: never ahead of an exchange that is ready no later.

import type { Graph } from './order.ts'
import { isExchange, type Queues, simulate } from './queues.ts'
import type { Times } from './types.ts'

/** How many gaps after the first possible one are tried. */
const GAPS = 6

/**
 * With times, each sum goes where the predicted step is shortest, earlier where equal; without, after the next two all-to-alls, in whose
 * shadow the following pair's backward computes. The same for every strategy.
 */
export function insertReductions(graph: Graph, queues: Queues, times?: Times): Queues {
  const ready = (index: number) => queues.computeNeeded[index] ?? -1
  const sums = graph.ops.flatMap((op, index) => (op.queue === 'comm' && !isExchange(op) ? [index] : []))
  let comm = queues.comm
  for (const sum of sums.toSorted((a, b) => ready(a) - ready(b) || a - b)) {
    const first = comm.findLastIndex(index => ready(index) <= ready(sum)) + 1
    const inserted = (gap: number) => comm.toSpliced(gap, 0, sum)
    const gap = times
      ? shortest(gapsAfter(first, comm.length), at => simulate({ ...queues, comm: inserted(at) }, times))
      : afterNextExchanges(graph, comm, first)
    comm = inserted(gap)
  }
  return { ...queues, comm }
}

function gapsAfter(first: number, last: number): number[] {
  const gaps = Array.from({ length: Math.min(GAPS, last - first + 1) }, (_, i) => first + i)
  return gaps.at(-1) === last ? gaps : [...gaps, last]
}

function shortest(gaps: readonly number[], makespan: (gap: number) => number): number {
  let best = gaps[0] ?? 0
  let bestTotal = Number.POSITIVE_INFINITY
  for (const gap of gaps) {
    const total = makespan(gap)
    if (total < bestTotal) {
      best = gap
      bestTotal = total
    }
  }
  return best
}

function afterNextExchanges({ ops }: Graph, comm: readonly number[], first: number): number {
  let passed = 0
  for (let gap = first; gap < comm.length; gap++) {
    if (passed === 2) return gap
    if (ops[comm[gap] ?? -1]?.op === 'all_to_all') passed++
  }
  return comm.length
}

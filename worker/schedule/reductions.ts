// Where sums of gradients and losses go between the exchanges of the comm queue: in the order in which they are ready, and never ahead of an
// exchange that is ready no later. The same for every strategy, so that strategies differ only in what they do about the exchanges.

import { collectiveOf } from '../program/effects.ts'
import type { Graph } from './order.ts'
import { isExchange, type Queues } from './queues.ts'
import { type Costs, type Course, courseOf, simulate } from './simulate.ts'

/** How often sums are moved and the step predicted again, for all candidates of a search alike. */
const TRIALS = 48

/** A schedule's queues with all communication, and what they are predicted to take. */
export interface Placed {
  queues: Queues
  total: number
  slack: number
}

/** With costs, each sum goes where the predicted step is shortest, earlier where equal; without, by a rule. */
export function insertReductions(graph: Graph, queues: Queues, costs?: Costs): Placed {
  const ready = (index: number) => queues.computeNeeded[index] ?? -1
  const sums = [...graph.ops.keys()]
    .filter(index => graph.ops[index]?.queue === 'comm' && !isExchange(graph.ops[index]))
    .toSorted((a, b) => ready(a) - ready(b) || a - b)
  const earliest = sums.map(sum => queues.comm.findLastIndex(index => ready(index) <= ready(sum)) + 1)
  const ruled = earliest.map(gap => afterNextExchanges(graph, queues.comm, gap))
  if (!costs) return { queues: withSums(queues, sums, ruled), total: 0, slack: 0 }
  const all = courseOf(costs, queues)
  const predict = (gaps: readonly number[]) => simulate(all, withSums(queues, sums, gaps).comm)
  const guesses = [
    ruled,
    ...fitted(
      courseOf(
        costs,
        queues,
        sums.map(sum => ready(sum) + 1),
      ),
      { queues, sums, earliest },
    ),
  ]
  const best = improve(guesses, { earliest, exchanges: queues.comm.length, predict })
  return { queues: withSums(queues, sums, best.gaps), ...predict(best.gaps) }
}

/**
 * Two all-to-alls further: after those of the next unit's backward, in whose shadow that unit still computes. Gaps never decrease from sum to
 * sum, because readiness does not.
 */
function afterNextExchanges({ ops }: Graph, exchanges: readonly number[], first: number): number {
  let passed = 0
  for (let gap = first; gap < exchanges.length; gap++) {
    if (passed === 2) return gap
    if (collectiveOf(ops[exchanges[gap] ?? -1]) === 'exchange') passed++
  }
  return exchanges.length
}

interface Sums {
  queues: Queues
  sums: readonly number[]
  /** Per sum the first gap it may go into. */
  earliest: readonly number[]
}

/** How much of the time that an exchange has to spare may go to sums before it. */
const SHARES = [0, 0.5, 1, 1e9]

/**
 * Guesses: each sum before the first exchange that it delays by no more than a share of the time that exchange has to spare. `base`: without
 * sums, watched where each is ready.
 */
function fitted(base: Course, { queues, sums, earliest }: Sums): number[][] {
  const reached = new Float64Array(base.ops.length)
  const spare = new Float64Array(base.ops.length).fill(Number.MAX_VALUE)
  const complete = new Float64Array(base.compute.length + 1)
  const ends = base.times.map(() => new Float64Array(base.ops.length))
  simulate(base, queues.comm, {
    travelled(op, rank, { ready, end }) {
      reached[op] = Math.max(reached[op] ?? 0, ready)
      ends[rank]?.set([end], op)
    },
    stopped(stop, rank, { reached: at }) {
      const { position, needs } = base.stops[stop] ?? { position: 0, needs: [] }
      complete[position] = Math.max(complete[position] ?? 0, at)
      for (const op of needs) spare[op] = Math.min(spare[op] ?? 0, Math.max(0, at - (ends[rank]?.[op] ?? 0)))
    },
  })
  const longest = (op: number) => Math.max(...base.times.map(times => times[op] ?? 0))
  return SHARES.map(share => {
    const gaps: number[] = []
    let free = 0
    for (const [gap, exchange] of queues.comm.entries()) {
      const start = reached[exchange] ?? 0
      for (
        let sum = sums[gaps.length];
        sum !== undefined && (earliest[gaps.length] ?? 0) <= gap;
        sum = sums[gaps.length]
      ) {
        const end = Math.max(free, complete[(queues.computeNeeded[sum] ?? -1) + 1] ?? 0) + longest(sum)
        if (end > start + share * (spare[exchange] ?? 0)) break
        free = end
        gaps.push(gap)
      }
      free = Math.max(free, start) + longest(exchange)
    }
    while (gaps.length < sums.length) gaps.push(queues.comm.length)
    return gaps
  })
}

interface Search {
  earliest: readonly number[]
  /** How many there are: the last gap. */
  exchanges: number
  predict: (gaps: readonly number[]) => { total: number }
}

/** From the best guess, moves one sum at a time between its neighbours as long as the step gets shorter. */
function improve(
  guesses: readonly number[][],
  { earliest, exchanges, predict }: Search,
): { gaps: number[]; total: number } {
  const tried = guesses.map(gaps => ({ gaps, total: predict(gaps).total }))
  let best = tried.reduce((a, b) => (b.total < a.total ? b : a))
  let trials = TRIALS
  for (let moved = true; moved && trials > 0; ) {
    moved = false
    for (const at of best.gaps.keys())
      for (const step of [-1, 1]) {
        const gap = (best.gaps[at] ?? 0) + step
        const least = Math.max(earliest[at] ?? 0, best.gaps[at - 1] ?? 0)
        if (gap < least || gap > (best.gaps[at + 1] ?? exchanges) || trials-- <= 0) continue
        const gaps = best.gaps.with(at, gap)
        const { total } = predict(gaps)
        if (total >= best.total) continue
        best = { gaps, total }
        moved = true
      }
  }
  return best
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

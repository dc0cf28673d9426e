// Puts sums of gradients and losses between the exchanges of the comm queue. They go in the order
// in which they are ready, and never ahead of an exchange that is ready no later. This is done for
// all strategies alike, so that strategies differ only in the exchanges.

import { collectiveOf } from '../program/effects.ts'
import type { Graph } from './order.ts'
import { isExchange, type Queues } from './queues.ts'
import { type Costs, type Course, courseOf, simulate } from './simulate.ts'

/** The largest number of moves of a sum that are tried, each with a prediction of the step. */
const TRIALS = 48

/** The queues of a schedule with all communication, and their prediction. */
export interface Placed {
  queues: Queues
  total: number
  slack: number
}

/**
 * Adds the sums to the queues. With costs, they go where the predicted step is shortest; without,
 * by the rule of `afterNextExchanges`.
 */
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
 * The gap behind the next two all-to-alls, which belong to the next unit's backward pass and are
 * hidden by that unit's computation. Gap i lies before exchange i. Gaps never decrease from sum to
 * sum, because the sums are in the order in which they are ready.
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
  /** For each sum, the first gap that it may go into. */
  earliest: readonly number[]
}

/** Shares of the time that an exchange has to spare, which may go to sums before it. */
const SHARES = [0, 0.5, 1, 1e9]

/**
 * Guesses, one for each of `SHARES`: every sum goes before the first exchange that it delays by no
 * more than that share of the time which the exchange has to spare. `base` is the step without
 * sums; its stops include the position at which each sum is ready.
 */
function fitted(base: Course, { queues, sums, earliest }: Sums): number[][] {
  const { reached, spare, complete } = observed(base, queues.comm)
  const longest = (op: number) => Math.max(...base.times.map(times => times[op] ?? 0))
  const readyAt = (sum: number) => complete[(queues.computeNeeded[sum] ?? -1) + 1] ?? 0
  return SHARES.map(share => {
    const gaps = sums.map(() => queues.comm.length)
    // The first `placed` sums have their gap; all others go into the present gap or a later one.
    let placed = 0
    // The queue is free again after the exchanges before the present gap and the placed sums.
    let free = 0
    for (const [gap, exchange] of queues.comm.entries()) {
      const start = reached[exchange] ?? 0
      const latest = start + share * (spare[exchange] ?? 0)
      for (; placed < sums.length && (earliest[placed] ?? 0) <= gap; placed++) {
        const sum = sums[placed] ?? 0
        const end = Math.max(free, readyAt(sum)) + longest(sum)
        if (end > latest) break
        gaps[placed] = gap
        free = end
      }
      free = Math.max(free, start) + longest(exchange)
    }
    return gaps
  })
}

/** Times in a simulated step without sums, in microseconds. */
interface Observed {
  /** By op, the latest time at which an exchange begins to travel on any rank. */
  reached: Float64Array
  /** By op, the least time on any rank from the end of an exchange until compute needs it. */
  spare: Float64Array
  /** By compute position, the latest time at which all compute before it is done. */
  complete: Float64Array
}

function observed(base: Course, comm: readonly number[]): Observed {
  const reached = new Float64Array(base.ops.length)
  const spare = new Float64Array(base.ops.length).fill(Number.MAX_VALUE)
  const complete = new Float64Array(base.compute.length + 1)
  const ends = base.times.map(() => new Float64Array(base.ops.length))
  simulate(base, comm, {
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
  return { reached, spare, complete }
}

interface Search {
  earliest: readonly number[]
  /** The number of exchanges, which is also the last gap. */
  exchanges: number
  predict: (gaps: readonly number[]) => { total: number }
}

/**
 * Starts from the best guess, and moves one sum at a time between its neighbours while the
 * predicted step gets shorter.
 */
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

/** The queues with sum i before exchange gaps[i]. */
function withSums(queues: Queues, sums: readonly number[], gaps: readonly number[]): Queues {
  const comm: number[] = []
  let next = 0
  for (const [position, exchange] of queues.comm.entries()) {
    while (next < sums.length && (gaps[next] ?? 0) <= position) comm.push(sums[next++] ?? 0)
    comm.push(exchange)
  }
  return { ...queues, comm: [...comm, ...sums.slice(next)] }
}

// Which schedule, and in which slots and chunks: predicted from times of the ops, so equal times give the same answer on every rank.

import { collectiveOf } from '../program/effects.ts'
import type { Emitted, Scheduled } from '../program/program.ts'
import { split } from './chunks.ts'
import { splitTimes } from './makespan.ts'
import { computeOrder, type Graph, graphOf, slots, withLateGradients } from './order.ts'
import { exchangeQueues, merge } from './queues.ts'
import { insertReductions, type Placed } from './reductions.ts'
import type { Costs } from './simulate.ts'
import {
  type Candidate,
  CHUNKS,
  type Choice,
  type Profile,
  ScheduleError,
  type Slot,
  type Times,
  type Wish,
} from './types.ts'

/**
 * Places ops on the two queues. Throws `ScheduleError` where the model has no such slot. With a profile (microseconds, emitted order) weight
 * gradients and sums of gradients go where the predicted step is shortest.
 */
export function schedule(emitted: Emitted, choice: Choice, profile?: Profile): Scheduled {
  const chunks = chunksOf(choice)
  if (!Number.isInteger(chunks) || chunks < 1)
    throw new ScheduleError(`overlap.chunks is ${chunks}: use ${CHUNKS.join(', ')}, or leave it out`)
  const prepared = prepare(emitted, chunks, profile)
  return merge(emitted, prepared.graph, place(prepared, choice).queues)
}

/** Schedules of this program that the wish allows. Throws `ScheduleError` where there are none. */
export function choices(emitted: Emitted, wish: Wish): Choice[] {
  return choicesOf(graphOf(split(emitted, 1)), wish)
}

/** The best predicted of them; ties go to fewer chunks, then to the larger slack, then to the earlier in the order of `choices`. */
export function choose(emitted: Emitted, profile: Profile, wish: Wish): Candidate & { candidates: Candidate[] } {
  const prepared = new Map<number, Prepared>()
  const candidates = choices(emitted, wish).map((choice): Candidate => {
    const chunks = chunksOf(choice)
    const known = prepared.get(chunks) ?? prepare(emitted, chunks, profile)
    prepared.set(chunks, known)
    const { queues, total, slack } = place(known, choice)
    // Written out when asked for: of a hundred candidates one is.
    return {
      choice,
      predicted: total,
      slack,
      get scheduled() {
        return merge(emitted, known.graph, queues)
      },
    }
  })
  return { ...candidates.reduce((best, other) => (better(other, best) ? other : best)), candidates }
}

/** e.g. `sequential`, `pipelined, 4 chunks` or `shortcut K=3, backward K=2, 1 chunk`. */
export function describe(choice: Choice): string {
  if (choice.strategy === 'Sequential') return 'sequential'
  const chunks = `${choice.chunks} ${choice.chunks === 1 ? 'chunk' : 'chunks'}`
  if (choice.strategy === 'Pipelined') return `pipelined, ${chunks}`
  return `shortcut K=${choice.forwardSlot}, backward K=${choice.backwardSlot}, ${chunks}`
}

const chunksOf = (choice: Choice) => (choice.strategy === 'Sequential' ? 1 : choice.chunks)

/** A program in chunks, before a choice of slots. */
interface Prepared {
  graph: Graph
  costs?: Costs
  /** Mean over ranks. */
  mean?: Times
}

function prepare(emitted: Emitted, chunks: number, profile?: Profile): Prepared {
  const graph = graphOf(split(emitted, chunks))
  if (!profile) return { graph }
  const times = splitTimes(graph, profile)
  const mean = Float64Array.from(
    graph.ops,
    (_, op) => times.reduce((sum, rank) => sum + (rank[op] ?? 0), 0) / times.length,
  )
  return { graph, costs: { ops: graph.ops, times, contention: profile.contention }, mean }
}

/** The best predicted of the orders in which weight gradients can be computed. As emitted without a profile, and where each exchange is waited for. */
function place({ graph, costs, mean }: Prepared, choice: Choice): Placed {
  const inOrder = (compute: readonly number[]) => insertReductions(graph, exchangeQueues(graph, choice, compute), costs)
  const plain = computeOrder(graph, choice)
  if (!mean || choice.strategy === 'Sequential') return inOrder(plain)
  const orders = [plain, computeOrder(graph, choice, mean)].flatMap(order => [order, withLateGradients(graph, order)])
  const different = orders.filter((order, i) => orders.findIndex(other => isSame(other, order)) === i)
  return different.map(inOrder).reduce((best, other) => (other.total < best.total ? other : best))
}

const isSame = (a: readonly number[], b: readonly number[]) => a.every((op, position) => op === b[position])

function choicesOf(graph: Graph, wish: Wish): Choice[] {
  const { forward, backward } = slots(graph)
  const hasExchanges = graph.ops.some(op => collectiveOf(op) === 'exchange')
  demand(wish, { forward, hasExchanges })
  const counts = CHUNKS.filter(count => wish.chunks === undefined || count === wish.chunks)
  // A program without backward has one backward slot that does not matter.
  const last = backward.length > 0 ? backward : [1]
  const shortcuts = counts.flatMap(chunks =>
    forward
      .filter(slot => wish.slot === undefined || slot === wish.slot)
      .flatMap(forwardSlot =>
        last.map((backwardSlot): Choice => ({ strategy: 'Shortcut', forwardSlot, backwardSlot, chunks })),
      ),
  )
  const pipelined = counts
    .filter(chunks => hasExchanges && chunks > 1)
    .map((chunks): Choice => ({ strategy: 'Pipelined', chunks }))
  const sequential: Choice = { strategy: 'Sequential' }
  if (wish.strategy === 'Sequential') return [sequential]
  if (wish.strategy === 'Pipelined') return pipelined
  return wish.strategy === 'Shortcut' ? shortcuts : [sequential, ...shortcuts, ...pipelined]
}

function refuse(problem: string, remedy: string): never {
  throw new ScheduleError(`overlap.${problem}: ${remedy}`)
}

function demand(
  { strategy, slot, chunks }: Wish,
  { forward, hasExchanges }: { forward: Slot[]; hasExchanges: boolean },
): void {
  const runsBeside = strategy === 'Shortcut' || strategy === 'Auto'
  const window = forward.length === 0 ? 'nothing to run beside its all-to-all' : `the slots ${forward.join(', ')}`
  if (strategy === 'Shortcut' && forward.length === 0)
    refuse(
      `strategy is Shortcut, but this model has ${window}`,
      'use Auto, Sequential or Pipelined, or model.kind ScMoE',
    )
  if (strategy === 'Pipelined' && !hasExchanges)
    refuse('strategy is Pipelined, but this model has no experts', 'use Auto or Sequential, or another model.kind')
  if (slot !== undefined && !runsBeside)
    refuse(`slot is ${slot}, which strategy ${strategy} does not have`, 'leave it out, or use Auto or Shortcut')
  if (slot !== undefined && !forward.includes(slot))
    refuse(`slot is ${slot}, but this model has ${window}`, 'use one it has, or leave slot out')
  if (chunks === undefined) return
  if (strategy === 'Sequential')
    refuse(`chunks is ${chunks}, but strategy Sequential does not split`, 'leave it out, or use another strategy')
  if (!CHUNKS.some(count => count === chunks))
    refuse(`chunks is ${chunks}`, `use one of ${CHUNKS.join(', ')}, or leave it out`)
  if (strategy === 'Pipelined' && chunks === 1)
    refuse('chunks is 1, but strategy Pipelined needs more', 'use 2, 4 or 8, or leave it out')
}

/** Sums of the same times in another order differ by rounding. */
const ROUNDING = 1e-9

/** Predicted shorter; of equals with fewer chunks, then with more slack. */
export function better(a: Candidate, b: Candidate): boolean {
  const tolerance = ROUNDING * Math.max(a.predicted, b.predicted)
  if (Math.abs(a.predicted - b.predicted) > tolerance) return a.predicted < b.predicted
  const fewer = chunksOf(b.choice) - chunksOf(a.choice)
  return fewer !== 0 ? fewer > 0 : a.slack > b.slack + tolerance
}

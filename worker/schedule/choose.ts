// Chooses the schedule with its slots and chunks. Predictions are made from the times of the ops,
// so every rank chooses the same from equal times.

import { collectiveOf } from '../program/effects.ts'
import type { Emitted, Scheduled } from '../program/program.ts'
import { split } from './chunks.ts'
import { splitTimes } from './makespan.ts'
import { computeOrder, type Graph, graphOf, slots, withLateGradients } from './order.ts'
import { exchangeQueues, merge } from './queues.ts'
import { insertReductions, type Placed } from './reductions.ts'
import type { Costs } from './simulate.ts'
import { type Candidate, CHUNKS, type Choice, type Profile, ScheduleError, type Times, type Wish } from './types.ts'

/**
 * Places ops on the two queues. With a profile (microseconds, in emitted order), weight gradients
 * and sums of gradients go where the predicted step is shortest. Throws `ScheduleError` if the
 * model has no such slot.
 */
export function schedule(emitted: Emitted, choice: Choice, profile?: Profile): Scheduled {
  const chunks = chunksOf(choice)
  if (!Number.isInteger(chunks) || chunks < 1)
    throw new ScheduleError(`there are no schedules in ${chunks} chunks: use ${CHUNKS.join(', ')}`)
  const prepared = prepare(emitted, chunks, profile)
  return merge(emitted, prepared.graph, place(prepared, choice).queues)
}

/**
 * Schedules of this program that the wish allows. Wishes of a job that breaks no rule of
 * crds/rules.ts allow at least one; throws `ScheduleError` if there is none.
 */
export function choices(emitted: Emitted, wish: Wish): Choice[] {
  const list = choicesOf(graphOf(split(emitted, 1)), wish)
  if (list.length === 0) throw new ScheduleError(`program ${emitted.name} has no schedule ${JSON.stringify(wish)}`)
  return list
}

/**
 * The schedule with the shortest predicted run among `choices`, and all of them as candidates. Ties
 * go to fewer chunks, then to the larger slack, then to the earlier choice.
 */
export function choose(emitted: Emitted, profile: Profile, wish: Wish): Candidate & { candidates: Candidate[] } {
  const prepared = new Map<number, Prepared>()
  const candidates = choices(emitted, wish).map((choice): Candidate => {
    const chunks = chunksOf(choice)
    const known = prepared.get(chunks) ?? prepare(emitted, chunks, profile)
    prepared.set(chunks, known)
    const { queues, total, slack } = place(known, choice)
    // Merged only when asked for, which happens to one of about a hundred candidates.
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

/** A choice as text, e.g. `pipelined, 4 chunks` or `shortcut K=3, backward K=2, 1 chunk`. */
export function describe(choice: Choice): string {
  if (choice.strategy === 'Sequential') return 'sequential'
  const chunks = `${choice.chunks} ${choice.chunks === 1 ? 'chunk' : 'chunks'}`
  if (choice.strategy === 'Pipelined') return `pipelined, ${chunks}`
  return `shortcut K=${choice.forwardSlot}, backward K=${choice.backwardSlot}, ${chunks}`
}

const chunksOf = (choice: Choice) => (choice.strategy === 'Sequential' ? 1 : choice.chunks)

/** A program divided into chunks, before a choice of slots. */
interface Prepared {
  graph: Graph
  costs?: Costs
  /** Times of the ops, mean over ranks. */
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

/**
 * Tries the orders in which weight gradients can be computed, and takes the one with the shortest
 * predicted run. Without a profile, and in a sequential schedule, the order is the emitted one.
 */
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
  const counts = CHUNKS.filter(count => wish.chunks === undefined || count === wish.chunks)
  // A program without a backward pass gets one backward slot, which has no effect.
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

/** Sums of the same times in different orders may differ by this share, because of rounding. */
const ROUNDING = 1e-9

/** Whether `a` is predicted to be shorter. Ties go to fewer chunks, then to more slack. */
export function better(a: Candidate, b: Candidate): boolean {
  const tolerance = ROUNDING * Math.max(a.predicted, b.predicted)
  if (Math.abs(a.predicted - b.predicted) > tolerance) return a.predicted < b.predicted
  const fewer = chunksOf(b.choice) - chunksOf(a.choice)
  return fewer !== 0 ? fewer > 0 : a.slack > b.slack + tolerance
}

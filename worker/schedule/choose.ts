// Sequential or Shortcut, and in which slots: predicted from times of the ops, so equal times give the same answer on every rank.

import type { Emitted, Scheduled } from '../program/program.ts'
import { dependencies } from './dependencies.ts'
import { makespan, minimumSlack } from './makespan.ts'
import { computeOrder, type Graph, slots } from './order.ts'
import { exchangeQueues, merge } from './queues.ts'
import { insertReductions } from './reductions.ts'
import { type Candidate, type Choice, ScheduleError, type Slot, type Strategy, type Times } from './types.ts'

/**
 * Places ops on the two queues. Throws `ScheduleError` where the model has no such slot. With `times` (microseconds, emitted order) sums of
 * gradients go where the predicted step is shortest.
 */
export function schedule(emitted: Emitted, choice: Choice, times?: Times): Scheduled {
  return place(emitted, graphOf(emitted), choice, times)
}

/** Schedules of this program that `strategy` and, where given, the forward `slot` allow. */
export function choices(emitted: Emitted, strategy: Strategy, slot?: number): Choice[] {
  return choicesOf(graphOf(emitted), strategy, slot)
}

/** The best predicted of them; ties go to the larger slack, then to the smaller slots. */
export function choose(
  emitted: Emitted,
  times: Times,
  strategy: Strategy,
  slot?: number,
): Candidate & { candidates: Candidate[] } {
  const graph = graphOf(emitted)
  const candidates = choicesOf(graph, strategy, slot).map(choice => {
    const scheduled = place(emitted, graph, choice, times)
    const spans = makespan(scheduled, emitted, times)
    return { choice, scheduled, predicted: spans.total, slack: minimumSlack(scheduled, spans) }
  })
  return { ...candidates.reduce((best, other) => (better(other, best) ? other : best)), candidates }
}

/** e.g. `shortcut K=3, backward K=2, 1 chunk` or `sequential`. */
export function describe(choice: Choice): string {
  if (choice.strategy === 'Sequential') return 'sequential'
  return `shortcut K=${choice.forwardSlot}, backward K=${choice.backwardSlot}, 1 chunk`
}

const graphOf = ({ ops }: Emitted): Graph => ({ ops, before: dependencies(ops) })

function place(emitted: Emitted, graph: Graph, choice: Choice, times?: Times): Scheduled {
  const exchanges = exchangeQueues(graph, choice, computeOrder(graph, choice))
  return merge(emitted, insertReductions(graph, exchanges, times))
}

function choicesOf(graph: Graph, strategy: Strategy, slot?: number): Choice[] {
  const { forward, backward } = slots(graph)
  const sequential: Choice = { strategy: 'Sequential' }
  if (strategy === 'Sequential') return [sequential]
  if (slot !== undefined && !forward.some(allowed => allowed === slot))
    throw new ScheduleError(`overlap.slot is ${slot}, but ${has(forward)}; leave it out, or change model.kind`)
  if (strategy === 'Shortcut' && forward.length === 0)
    throw new ScheduleError(
      `overlap.strategy is Shortcut, but ${has(forward)}; use Sequential or Auto, or change model.kind`,
    )
  const chosen = forward.filter(allowed => slot === undefined || allowed === slot)
  // A program without backward has one backward slot that does not matter.
  const last: Slot[] = backward.length > 0 ? backward : [1]
  const shortcuts = chosen.flatMap(forwardSlot =>
    last.map((backwardSlot): Choice => ({ strategy: 'Shortcut', forwardSlot, backwardSlot })),
  )
  return strategy === 'Auto' ? [sequential, ...shortcuts] : shortcuts
}

const has = (list: readonly Slot[]) =>
  list.length === 0
    ? 'this model has nothing to run beside its all-to-all'
    : `this model has the slots ${list.join(', ')}`

/** Sums of the same times in another order differ by rounding. */
const ROUNDING = 1e-9

function better(a: Candidate, b: Candidate): boolean {
  const tolerance = ROUNDING * Math.max(a.predicted, b.predicted)
  if (Math.abs(a.predicted - b.predicted) > tolerance) return a.predicted < b.predicted
  return a.slack > b.slack + tolerance
}

// How much of the communication was hidden, from start and end of every op of one run (measured or predicted).

import type { Scheduled, ScheduledOp } from '../program/program.ts'
import { isExchange } from './queues.ts'
import type { Spans } from './types.ts'

export interface Overlap {
  /** Microseconds the compute queue stood still for an all-to-all or the counts before it. */
  waited: number
  /** Microseconds the compute queue stood still for sums of gradients, or for an exchange queued behind one. */
  waitedForReduce: number
  /** Microseconds all-to-alls and counts took. */
  communication: number
  /** 100 * (1 - waited / communication), 0 to 100; 100 where there was no communication. */
  hiddenPercent: number
  /** All-to-alls and counts as a share of the MoE branch, gate to decode, forward and backward, 0 to 1. Of a sequential run: what can be hidden. */
  communicationShareOfMoe: number
}

const BRANCH = new Set(['gate', 'counts', 'encode', 'dispatch', 'experts', 'combine', 'decode', 'wgrad'])

export function overlap(scheduled: Scheduled, spans: Spans): Overlap {
  const { ops } = scheduled
  const length = (index: number) => (spans.end[index] ?? 0) - (spans.start[index] ?? 0)
  const sums = ops.flatMap((op, index) => (op.queue === 'comm' && !isExchange(op) ? [index] : []))
  let waited = 0
  let waitedForReduce = 0
  let communication = 0
  let previous = 0
  const branch = { communication: 0, all: 0 }
  for (const [index, op] of ops.entries()) {
    if (isExchange(op)) communication += length(index)
    if (op.segment.phase !== 'update' && BRANCH.has(op.segment.part)) {
      branch.all += length(index)
      if (isExchange(op)) branch.communication += length(index)
    }
    if (op.queue !== 'compute') continue
    const gap = { start: previous, end: spans.start[index] ?? 0 }
    previous = spans.end[index] ?? 0
    const awaited = op.waits.map(wait => ops[wait]).find((other): other is ScheduledOp => other !== undefined)
    if (!awaited || gap.end <= gap.start) continue
    const behindSums = sums.reduce(
      (sum, at) => sum + common(gap, { start: spans.start[at] ?? 0, end: spans.end[at] ?? 0 }),
      0,
    )
    const forSums = isExchange(awaited) ? behindSums : gap.end - gap.start
    waitedForReduce += forSums
    waited += gap.end - gap.start - forSums
  }
  const hidden = communication > 0 ? 100 * (1 - waited / communication) : 100
  return {
    waited,
    waitedForReduce,
    communication,
    hiddenPercent: Math.min(100, Math.max(0, hidden)),
    communicationShareOfMoe: branch.all > 0 ? branch.communication / branch.all : 0,
  }
}

interface Interval {
  start: number
  end: number
}

const common = (a: Interval, b: Interval) => Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start))

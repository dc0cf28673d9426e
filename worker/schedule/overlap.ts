// How much of the communication was hidden, from start and end of every op of one run (measured or predicted).

import type { Scheduled } from '../program/program.ts'
import { common } from './measured.ts'
import { isExchange } from './queues.ts'
import type { Spans } from './types.ts'

export interface Overlap {
  /** Microseconds the compute queue stood still while all-to-alls or the counts before them travelled. */
  waited: number
  /** Microseconds it stood still while sums of gradients travelled, also where it needs an exchange queued behind one. */
  waitedForReduce: number
  /** Microseconds it stood still because another rank had not come to a collective yet. */
  waitedForRanks: number
  /** Microseconds all-to-alls and counts travelled. */
  communication: number
  /** Microseconds all collectives waited for other ranks, seen by compute or not. */
  skew: number
  /** 100 * (1 - waited / communication), 0 to 100; 100 where there was no communication. */
  hiddenPercent: number
  /** All-to-alls and counts as a share of the MoE branch, gate to decode, forward and backward, 0 to 1. Of a sequential run: what can be hidden. */
  communicationShareOfMoe: number
}

const BRANCH = new Set(['gate', 'counts', 'encode', 'dispatch', 'experts', 'combine', 'decode', 'wgrad', 'current'])

export function overlap(scheduled: Scheduled, spans: Spans): Overlap {
  const journeys = journeysOf(scheduled, spans)
  const stood = standing(scheduled, spans, journeys)
  const communication = journeys.reduce((sum, { exchange, transfer }) => sum + (exchange ? lengthOf(transfer) : 0), 0)
  const hidden = communication > 0 ? 100 * (1 - stood.waited / communication) : 100
  return {
    ...stood,
    communication,
    skew: journeys.reduce((sum, { skew }) => sum + lengthOf(skew), 0),
    hiddenPercent: Math.min(100, Math.max(0, hidden)),
    communicationShareOfMoe: shareOfMoe(scheduled, spans, journeys),
  }
}

interface Interval {
  start: number
  end: number
}

const lengthOf = ({ start, end }: Interval) => Math.max(0, end - start)

/** A collective: first it waits for the last rank, then data travels. */
interface Journey {
  op: number
  exchange: boolean
  skew: Interval
  transfer: Interval
}

function journeysOf({ ops }: Scheduled, spans: Spans): Journey[] {
  return ops.flatMap((op, index) => {
    if (op.queue !== 'comm') return []
    const [start, end] = [spans.start[index] ?? 0, spans.end[index] ?? 0]
    const ready = Math.min(Math.max(start, spans.ready?.[index] ?? start), end)
    return [{ op: index, exchange: isExchange(op), skew: { start, end: ready }, transfer: { start: ready, end } }]
  })
}

/** Compute's pauses before ops that wait, by what the comm queue did meanwhile; where it did nothing, by what was waited for. */
function standing({ ops }: Scheduled, spans: Spans, journeys: readonly Journey[]) {
  const stood = { waited: 0, waitedForReduce: 0, waitedForRanks: 0 }
  let previous = 0
  let next = 0
  for (const [index, op] of ops.entries()) {
    if (op.queue !== 'compute') continue
    const gap = { start: previous, end: spans.start[index] ?? 0 }
    previous = spans.end[index] ?? 0
    const [awaited] = op.waits
    if (awaited === undefined || gap.end <= gap.start) continue
    let idle = gap.end - gap.start
    while ((journeys[next]?.transfer.end ?? Number.POSITIVE_INFINITY) <= gap.start) next++
    for (let at = next; (journeys[at]?.skew.start ?? Number.POSITIVE_INFINITY) < gap.end; at++) {
      const { exchange, skew, transfer } = journeys[at] ?? { exchange: false, skew: gap, transfer: gap }
      const travelled = common(gap, transfer)
      const delayed = common(gap, skew)
      stood[exchange ? 'waited' : 'waitedForReduce'] += travelled
      stood.waitedForRanks += delayed
      idle -= travelled + delayed
    }
    stood[isExchange(ops[awaited]) ? 'waited' : 'waitedForReduce'] += Math.max(0, idle)
  }
  return stood
}

function shareOfMoe({ ops }: Scheduled, spans: Spans, journeys: readonly Journey[]): number {
  const travelled = new Map(journeys.map(({ op, transfer }) => [op, lengthOf(transfer)]))
  let [communication, all] = [0, 0]
  for (const [index, op] of ops.entries()) {
    if (op.segment.phase === 'update' || !BRANCH.has(op.segment.part)) continue
    const time = travelled.get(index) ?? (spans.end[index] ?? 0) - (spans.start[index] ?? 0)
    all += time
    if (op.queue === 'comm') communication += time
  }
  return all > 0 ? communication / all : 0
}

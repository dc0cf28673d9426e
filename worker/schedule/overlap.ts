// How much of the communication was hidden, from start and end of every op of one run (measured or predicted).

import type { Scheduled } from '../program/program.ts'
import { common } from './measured.ts'
import { isExchange } from './queues.ts'
import type { Spans } from './types.ts'

export interface Overlap {
  /** Microseconds the compute queue stood still for the travel of all-to-alls and the counts before them. */
  waited: number
  /** Microseconds it stood still for the travel of sums of gradients, also where it needs an exchange queued behind one. */
  waitedForReduce: number
  /** Microseconds it stood still because other ranks came later to this or an earlier collective than this one did. */
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

/**
 * When each collective would have travelled had the other ranks come to all of them no later than this one: as late after compute, or after the
 * collective before it, as it was issued, and for as long.
 */
function unskewed({ ops }: Scheduled, spans: Spans, journeys: readonly Journey[]): Interval[] {
  let [issued, ended, end] = [0, 0, 0]
  return journeys.map(({ op, skew, transfer }) => {
    for (const awaited of ops[op]?.waits ?? []) issued = Math.max(issued, spans.end[awaited] ?? 0)
    const start = Math.max(end, issued) + Math.max(0, skew.start - Math.max(ended, issued))
    ended = transfer.end
    end = start + lengthOf(transfer)
    return { start, end }
  })
}

/**
 * Compute's pauses before ops that wait: for other ranks what would not have been without skew, the rest by what would have travelled meanwhile;
 * where nothing would, by what was waited for.
 */
function standing(scheduled: Scheduled, spans: Spans, journeys: readonly Journey[]) {
  const { ops } = scheduled
  const stood = { waited: 0, waitedForReduce: 0, waitedForRanks: 0 }
  const travels = unskewed(scheduled, spans, journeys)
  const place = new Map(journeys.map(({ op }, at) => [op, at]))
  let previous = 0
  let next = 0
  for (const [index, op] of ops.entries()) {
    if (op.queue !== 'compute') continue
    const gap = { start: previous, end: spans.start[index] ?? 0 }
    previous = spans.end[index] ?? 0
    const [awaited] = op.waits
    if (awaited === undefined || gap.end <= gap.start) continue
    const arrival = travels[place.get(awaited) ?? -1]?.end ?? gap.start
    const awakening = Math.max(0, gap.end - Math.max(gap.start, spans.end[awaited] ?? 0))
    let left = Math.min(lengthOf(gap), Math.max(0, arrival - gap.start) + awakening)
    stood.waitedForRanks += lengthOf(gap) - left
    const pause = { start: gap.start, end: Math.min(arrival, gap.end) }
    while ((travels[next]?.end ?? Number.POSITIVE_INFINITY) <= gap.start) next++
    for (let at = next; (travels[at]?.start ?? Number.POSITIVE_INFINITY) < pause.end; at++) {
      const travelled = common(pause, travels[at])
      stood[journeys[at]?.exchange ? 'waited' : 'waitedForReduce'] += travelled
      left -= travelled
    }
    stood[isExchange(ops[awaited]) ? 'waited' : 'waitedForReduce'] += Math.max(0, left)
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

// How much of the communication was hidden, from start and end of every op of one run, measured or
// predicted.

import type { Scheduled } from '../program/program.ts'
import { type Interval, lengthOf, sweep } from './intervals.ts'
import { isExchange } from './queues.ts'
import type { Spans } from './types.ts'

/** Times in microseconds. An exchange is an all-to-all or the gathering of counts before it. */
export interface Overlap extends Standing {
  /** Time that exchanges travelled. */
  communication: number
  /** Time that all collectives waited for other ranks, whether or not compute noticed. */
  skew: number
  /** See `hiddenPercentOf`. */
  hiddenPercent: number
  /**
   * Exchanges as a share of the MoE branch, gate to decode, forward and backward, 0 to 1. In a
   * sequential run this is the share that can be hidden.
   */
  communicationShareOfMoe: number
}

/** Time that the compute queue stood still, by what it stood still for; microseconds. */
interface Standing {
  /** The travel of exchanges. */
  waited: number
  /**
   * The travel of sums of gradients, also if an exchange that compute needs is queued behind one.
   */
  waitedForReduce: number
  /** Other ranks, which came later than this one to this collective or to an earlier one. */
  waitedForRanks: number
}

const BRANCH = new Set(['gate', 'counts', 'encode', 'dispatch', 'experts', 'combine', 'decode', 'wgrad', 'current'])

/**
 * The share of communication that was hidden behind computation: 100 * (1 - waited /
 * communication), between 0 and 100; 100 if there was no communication. Both times in the same
 * unit.
 */
export function hiddenPercentOf({ waited, communication }: { waited: number; communication: number }): number {
  return communication > 0 ? Math.min(100, Math.max(0, 100 * (1 - waited / communication))) : 100
}

export function overlap(scheduled: Scheduled, spans: Spans): Overlap {
  const journeys = journeysOf(scheduled, spans)
  const stood = standing(scheduled, spans, journeys)
  const communication = journeys.reduce((sum, { exchange, transfer }) => sum + (exchange ? lengthOf(transfer) : 0), 0)
  return {
    ...stood,
    communication,
    skew: journeys.reduce((sum, { skew }) => sum + lengthOf(skew), 0),
    hiddenPercent: hiddenPercentOf({ ...stood, communication }),
    communicationShareOfMoe: shareOfMoe(scheduled, spans, journeys),
  }
}

/** The overlap of several runs together, such as the micro-batches of a step; at least one. */
export function overlapOfAll(runs: readonly Overlap[]): Overlap {
  const total = (value: (each: Overlap) => number) => runs.reduce((all, each) => all + value(each), 0)
  const waited = total(each => each.waited)
  const communication = total(each => each.communication)
  return {
    waited,
    communication,
    waitedForReduce: total(each => each.waitedForReduce),
    waitedForRanks: total(each => each.waitedForRanks),
    skew: total(each => each.skew),
    hiddenPercent: hiddenPercentOf({ waited, communication }),
    communicationShareOfMoe: total(each => each.communicationShareOfMoe) / runs.length,
  }
}

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
 * When each collective would have travelled if the other ranks had come to all of them no later
 * than this rank: as late after compute, or after the collective before it, as it was issued, and
 * for as long.
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

/** A stretch in which compute stood still because its next op waits for a collective. */
interface Pause extends Interval {
  /** Index of the collective among the scheduled ops. */
  awaited: number
}

/** In ascending order. */
function pausesOf({ ops }: Scheduled, spans: Spans): Pause[] {
  const pauses: Pause[] = []
  let start = 0
  for (const [index, { queue, waits }] of ops.entries()) {
    if (queue !== 'compute') continue
    const end = spans.start[index] ?? 0
    const [awaited] = waits
    if (awaited !== undefined && end > start) pauses.push({ start, end, awaited })
    start = spans.end[index] ?? 0
  }
  return pauses
}

function standing(scheduled: Scheduled, spans: Spans, journeys: readonly Journey[]): Standing {
  const stood: Standing = { waited: 0, waitedForReduce: 0, waitedForRanks: 0 }
  const attribute = attribution(scheduled, spans, journeys)
  for (const pause of pausesOf(scheduled, spans)) {
    const share = attribute(pause)
    stood.waited += share.waited
    stood.waitedForReduce += share.waitedForReduce
    stood.waitedForRanks += share.waitedForRanks
  }
  return stood
}

/**
 * Attributes a pause. The part that would not have been without skew was for other ranks. The rest
 * is attributed to the collectives that would have travelled meanwhile and, if none would, to the
 * one that was waited for. Pauses must be given in ascending order.
 */
function attribution(scheduled: Scheduled, spans: Spans, journeys: readonly Journey[]): (pause: Pause) => Standing {
  const travels = unskewed(scheduled, spans, journeys)
  const arrivals = new Map(journeys.map(({ op }, at) => [op, travels[at]?.end ?? 0]))
  const travelling = sweep(travels)
  return ({ awaited, ...pause }) => {
    const arrival = arrivals.get(awaited) ?? pause.start
    // Time from the collective's end, as measured, until compute went on.
    const awakening = Math.max(0, pause.end - Math.max(pause.start, spans.end[awaited] ?? 0))
    const withoutSkew = Math.min(lengthOf(pause), Math.max(0, arrival - pause.start) + awakening)
    const share: Standing = { waited: 0, waitedForReduce: 0, waitedForRanks: lengthOf(pause) - withoutSkew }
    let left = withoutSkew
    travelling({ start: pause.start, end: Math.min(arrival, pause.end) }, (at, travelled) => {
      share[journeys[at]?.exchange ? 'waited' : 'waitedForReduce'] += travelled
      left -= travelled
    })
    share[isExchange(scheduled.ops[awaited]) ? 'waited' : 'waitedForReduce'] += Math.max(0, left)
    return share
  }
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

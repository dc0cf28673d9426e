// The turns of the demo's comparison: which job runs next, on links of which rate, and what all of
// them say at the end. Pure.
//
// A turn is one short job. First turns of the sequential job look for the rate of the links at
// which its all-to-alls take a given share of the MoE layers' time on this machine. Then the two
// jobs take turns at this rate. A turn during which others used the machine does not count.

import { nearest, nextRate, type Trial } from '../../bench/turns/calibrate.ts'
import type { Taken } from '../../bench/turns/load.ts'
import { isQuiet } from '../../bench/turns/watch.ts'
import { median } from '../../worker/median.ts'

export type Side = 'sequential' | 'shortcut'

/** A turn that is to run. */
export interface Ask {
  side: Side
  /** The limit of the links in Mbit/s. */
  mbit: number
  /**
   * The slot of the shortcut that an earlier turn chose, so that this turn needs no steps to choose
   * it.
   */
  slot?: number
}

/** A turn that has ended, with the figures of its job's status. */
export interface Turn extends Ask {
  tokensPerSecond: number
  stepMilliseconds: number
  allToAllMilliseconds: number
  /** The all-to-alls' share of the MoE layers' time. */
  sharePercent: number
  hiddenPercent: number
  schedule: string
  taken: Taken
}

export const SHARE_PERCENT = 60
/** Pairs of one turn of each side. */
export const PAIRS = 3
/** The comparison ends without a ratio after one disturbed turn more than this. */
export const MOST_DISTURBED = 4
const FIRST_MBIT = 450
const MOST_TRIALS = 4
const NEAR_PERCENT = 3
/** Shares outside these bounds would give rates that mean nothing. */
const SHARES = { least: 0.02, most: 0.97 }

const quietTurns = (turns: readonly Turn[]) => turns.filter(({ taken }) => isQuiet(taken))

const trialOf = ({ mbit, sharePercent }: Turn): Trial => ({
  rate: mbit,
  share: Math.min(SHARES.most, Math.max(SHARES.least, sharePercent / 100)),
})

/** The rate that was found; undefined while it is looked for. */
function rateFound(trials: readonly Turn[]): number | undefined {
  const near = trials.find(({ sharePercent }) => Math.abs(sharePercent - SHARE_PERCENT) <= NEAR_PERCENT)
  if (near !== undefined) return near.mbit
  if (trials.length < MOST_TRIALS && !trials.some((trial, at) => isWithoutEffect(trials[at - 1], trial)))
    return undefined
  return nearest(trials.map(trialOf), SHARE_PERCENT / 100)?.rate
}

/** Whether another rate changed nothing, because this cluster does not limit the links of pods. */
function isWithoutEffect(before: Turn | undefined, { mbit, sharePercent }: Turn): boolean {
  if (before === undefined) return false
  const factor = Math.max(mbit, before.mbit) / Math.min(mbit, before.mbit)
  return factor > 1.5 && Math.abs(sharePercent - before.sharePercent) <= 2
}

/** The next turn; undefined when there is nothing left to do. */
export function next(turns: readonly Turn[]): Ask | undefined {
  const quiet = quietTurns(turns)
  if (turns.length - quiet.length > MOST_DISTURBED) return undefined
  const sequential = quiet.filter(({ side }) => side === 'sequential')
  const mbit = rateFound(sequential)
  if (mbit === undefined) {
    const trials = sequential.map(trialOf)
    const rate = trials.length === 0 ? FIRST_MBIT : nextRate(trials, SHARE_PERCENT / 100)
    return { side: 'sequential', mbit: Math.max(1, Math.round(rate)) }
  }
  const count = (side: Side) => quiet.filter(turn => turn.side === side && turn.mbit === mbit).length
  const [first, second] = [count('sequential'), count('shortcut')]
  if (first >= PAIRS && second >= PAIRS) return undefined
  // Every second pair runs in the other order, so that a drift of the machine favours neither.
  const isSequential = first === second ? first % 2 === 0 : first < second
  const slot = isSequential ? undefined : slotOf(quiet.find(turn => turn.side === 'shortcut'))
  return { side: isSequential ? 'sequential' : 'shortcut', mbit, ...(slot !== undefined && { slot }) }
}

/** The slot of a schedule that is described as `shortcut K=3, backward K=2, 1 chunk`. */
function slotOf(turn: Turn | undefined): number | undefined {
  const slot = Number(/^shortcut K=(\d)/.exec(turn?.schedule ?? '')?.[1])
  return Number.isNaN(slot) ? undefined : slot
}

export interface Comparison {
  mbit: number
  /** Medians over the turns of a side. */
  sides: Record<Side, Omit<Turn, 'side' | 'mbit' | 'taken'>>
  /** Tokens per second of the shortcut over those in sequence: of the medians, and of the pairs. */
  ratio: number
  lowest: number
  highest: number
  /** Tokens per second. */
  pairs: Record<Side, number>[]
}

/** The comparison at the rate that was found; undefined if the machine was not the demo's own. */
export function comparisonOf(turns: readonly Turn[]): Comparison | undefined {
  const quiet = quietTurns(turns)
  const mbit = rateFound(quiet.filter(({ side }) => side === 'sequential'))
  const of = (side: Side) => quiet.filter(turn => turn.side === side && turn.mbit === mbit).slice(0, PAIRS)
  const [sequential, shortcut] = [of('sequential'), of('shortcut')]
  if (mbit === undefined || sequential.length < PAIRS || shortcut.length < PAIRS) return undefined
  const pairs = shortcut.map((turn, pair) => {
    return { sequential: sequential[pair]?.tokensPerSecond ?? Number.NaN, shortcut: turn.tokensPerSecond }
  })
  const ratios = pairs.map(pair => pair.shortcut / pair.sequential)
  const sides = { sequential: mediansOf(sequential), shortcut: mediansOf(shortcut) }
  return {
    mbit,
    sides,
    ratio: sides.shortcut.tokensPerSecond / sides.sequential.tokensPerSecond,
    lowest: Math.min(...ratios),
    highest: Math.max(...ratios),
    pairs,
  }
}

function mediansOf(turns: readonly Turn[]): Comparison['sides'][Side] {
  const of = (value: (turn: Turn) => number) => median(turns.map(value))
  return {
    tokensPerSecond: of(turn => turn.tokensPerSecond),
    stepMilliseconds: of(turn => turn.stepMilliseconds),
    allToAllMilliseconds: of(turn => turn.allToAllMilliseconds),
    sharePercent: of(turn => turn.sharePercent),
    hiddenPercent: of(turn => turn.hiddenPercent),
    schedule: [...new Set(turns.map(turn => turn.schedule))].join('; '),
  }
}

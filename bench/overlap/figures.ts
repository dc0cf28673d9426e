// Calculates the figures of a row from measurements, and compares them with the targets. Pure.

import { median } from '../../worker/median.ts'
import type { Scheduled } from '../../worker/program/program.ts'
import { hiddenPercentOf, overlap, type Spans } from '../../worker/schedule/schedule.ts'
import { type ModelName, type Phase, PROPOSED } from './shape.ts'

/** Figures of programs that ran in sequence on one rank; percentages are of their total time. */
export interface RankFigures {
  hiddenPercent: number
  commShareOfMoe: number
  skewPercent: number
  exposedReducePercent: number
  /** Processor time of the communication thread as a share of one processor. */
  commCpuPercent: number
}

export function rankFigures(runs: readonly { scheduled: Scheduled; spans: Spans }[]): RankFigures {
  const overlaps = runs.map(({ scheduled, spans }) => overlap(scheduled, spans))
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)
  const total = sum(runs.map(({ spans }) => spans.end.reduce((latest, end) => Math.max(latest, end), 0)))
  const percent = (time: number) => (100 * time) / total
  const [waited, communication] = [sum(overlaps.map(o => o.waited)), sum(overlaps.map(o => o.communication))]
  const cpu = runs.flatMap(({ scheduled, spans }) =>
    scheduled.ops.map(({ queue }, op) => (queue === 'comm' ? (spans.cpu?.[op] ?? 0) : 0)),
  )
  return {
    hiddenPercent: hiddenPercentOf({ waited, communication }),
    commShareOfMoe: sum(overlaps.map(o => o.communicationShareOfMoe)) / runs.length,
    skewPercent: percent(sum(overlaps.map(o => o.waitedForRanks))),
    exposedReducePercent: percent(sum(overlaps.map(o => o.waitedForReduce))),
    commCpuPercent: percent(sum(cpu)),
  }
}

export function meanOf(ranks: readonly RankFigures[]): RankFigures {
  const mean = (value: (each: RankFigures) => number) =>
    ranks.reduce((sum, rank) => sum + value(rank), 0) / ranks.length
  return {
    hiddenPercent: mean(each => each.hiddenPercent),
    commShareOfMoe: mean(each => each.commShareOfMoe),
    skewPercent: mean(each => each.skewPercent),
    exposedReducePercent: mean(each => each.exposedReducePercent),
    commCpuPercent: mean(each => each.commCpuPercent),
  }
}

/** The measurement of a row in one round. */
export interface Sample extends RankFigures {
  milliseconds: number
}

export interface Measured extends RankFigures {
  milliseconds: number
  ratioToTop2: number
  ratioToBound: number
}

/**
 * The medians over the rounds of a row. `top2` are the times of the baseline and `bound` those of
 * the model without transfers; ratios are taken within a round.
 */
export function measured(samples: readonly Sample[], top2: readonly number[], bound: readonly number[]): Measured {
  const of = (value: (sample: Sample, round: number) => number) => median(samples.map(value))
  return {
    milliseconds: of(sample => sample.milliseconds),
    ratioToTop2: of((sample, round) => (top2[round] ?? Number.NaN) / sample.milliseconds),
    ratioToBound: of((sample, round) => (bound[round] ?? Number.NaN) / sample.milliseconds),
    hiddenPercent: of(sample => sample.hiddenPercent),
    commShareOfMoe: of(sample => sample.commShareOfMoe),
    skewPercent: of(sample => sample.skewPercent),
    exposedReducePercent: of(sample => sample.exposedReducePercent),
    commCpuPercent: of(sample => sample.commCpuPercent),
  }
}

/** A line of the table and of the JSON file. */
export interface Line extends Omit<Measured, 'milliseconds'> {
  /** The percentage of the MoE layer of sequential Top2 that communication takes. */
  regime: number
  phase: Phase
  kind: string
  position: number | null
  strategy: string
  slot: number | null
  chunks: number | null
  tokensPerSecond: number
  predictedOverMeasured: number
  flopBound: number
  /** The speed of the same model without transfers over that of sequential Top2. */
  boundToTop2: number
  model: ModelName
  schedule: string
}

export interface Verdict {
  regime: number
  phase: Phase
  what: string
  target: string
  figure: number
  met: boolean
}

const TARGETS: Readonly<Record<number, { train: number; forward: number; hidden: number; bound: number }>> = {
  60: { train: 1.6, forward: 1.7, hidden: 97, bound: 0.97 },
  50: { train: 1.4, forward: 1.45, hidden: 98, bound: 0.97 },
  15: { train: 1.07, forward: 1.1, hidden: 98, bound: 0.98 },
}

/** The verdicts about the lines of one regime and phase. */
export function verdicts(lines: readonly Line[]): Verdict[] {
  const auto = lines.find(({ model, strategy }) => model === PROPOSED && strategy === 'Auto')
  if (!auto) return []
  const { regime, phase } = auto
  const target = TARGETS[regime]
  const least = (what: string, figure: number, limit: number): Verdict => {
    return { regime, phase, what, target: `>= ${limit}`, figure, met: figure >= limit }
  }
  const best = (isOne: (line: Line) => boolean) =>
    Math.max(...lines.filter(isOne).map(({ tokensPerSecond }) => tokensPerSecond))
  const faster = (what: string, isOne: (line: Line) => boolean) => {
    const figure = auto.tokensPerSecond / best(isOne)
    return { regime, phase, what: `times as fast as ${what}`, target: '> 1', figure, met: figure > 1 }
  }
  const error = Math.max(
    ...lines.filter(({ model }) => model === PROPOSED).map(line => Math.abs(line.predictedOverMeasured - 1)),
  )
  const list = [
    least(
      'Auto against the best fixed slot',
      auto.tokensPerSecond / best(l => l.model === PROPOSED && l.slot !== null),
      0.98,
    ),
    { regime, phase, what: 'error of prediction', target: '<= 0.1', figure: error, met: error <= 0.1 },
  ]
  if (target) {
    list.unshift(
      least('times as fast as sequential Top2', auto.ratioToTop2, target[phase]),
      least('hidden, percent', auto.hiddenPercent, target.hidden),
      least('share of its own speed without transfers', auto.ratioToBound, target.bound),
    )
  }
  if (regime < 50) return list
  return [
    ...list,
    faster('pipelined Top2', ({ model, strategy }) => model === 'Top2' && strategy === 'Pipelined'),
    faster('sequential Top1', ({ model }) => model === 'Top1'),
    faster('SharedExpert', ({ model }) => model === 'SharedExpert'),
  ]
}

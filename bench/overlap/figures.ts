// Calculates the values of a row from measurements, and the figures with their targets. Pure.

import { median } from '../../worker/median.ts'
import type { Scheduled } from '../../worker/program/program.ts'
import { hiddenPercentOf, overlap, type Spans } from '../../worker/schedule/schedule.ts'
import { type Aim, above, atLeast, atMost, type Figure, figureOf, medianOf } from '../turns/figures.ts'
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

/** One round of a row; intervals are calculated from all of them. */
export interface Round {
  milliseconds: number
  ratioToTop2: number
  ratioToBound: number
  hiddenPercent: number
}

/** The medians over the rounds of a row, and the rounds themselves. */
interface Summary extends Measured {
  rounds: Round[]
}

/**
 * The medians over the rounds of a row. `top2` are the times of the baseline and `bound` those of
 * the model without transfers; ratios are taken within a round.
 */
export function measured(samples: readonly Sample[], top2: readonly number[], bound: readonly number[]): Summary {
  const of = (value: (sample: Sample) => number) => median(samples.map(value))
  const rounds = samples.map(({ milliseconds, hiddenPercent }, round): Round => {
    const over = (times: readonly number[]) => (times[round] ?? Number.NaN) / milliseconds
    return { milliseconds, ratioToTop2: over(top2), ratioToBound: over(bound), hiddenPercent }
  })
  return {
    rounds,
    milliseconds: of(sample => sample.milliseconds),
    ratioToTop2: median(rounds.map(round => round.ratioToTop2)),
    ratioToBound: median(rounds.map(round => round.ratioToBound)),
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
  rounds: Round[]
}

const TARGETS: Readonly<Record<number, { train: number; forward: number; hidden: number; bound: number }>> = {
  60: { train: 1.6, forward: 1.7, hidden: 97, bound: 0.97 },
  50: { train: 1.4, forward: 1.45, hidden: 98, bound: 0.97 },
  15: { train: 1.07, forward: 1.1, hidden: 98, bound: 0.98 },
}

/**
 * The figures of one regime and phase, about the proposed model under the schedule that it chose.
 */
export function figuresOf(lines: readonly Line[]): Figure[] {
  const auto = lines.find(({ model, strategy }) => model === PROPOSED && strategy === 'Auto')
  if (!auto) return []
  const { regime, phase } = auto
  const target = TARGETS[regime]
  const about = (name: string) => `${regime} %, ${phase}: ${name}`
  const ofRounds = (name: string, unit: string, aim: Aim | undefined, value: (round: Round) => number) =>
    medianOf({ name: about(name), unit, aim, samples: auto.rounds.map(value) })
  const figures = [
    ofRounds('times as fast as sequential Top2', 'x', target && atLeast(target[phase]), round => round.ratioToTop2),
    ofRounds('hidden', '%', target && atLeast(target.hidden), round => round.hiddenPercent),
    ofRounds('of its speed without transfers', 'x', target && atLeast(target.bound), round => round.ratioToBound),
  ]
  const over = (name: string, aim: Aim, isOne: (line: Line) => boolean) => {
    const others = lines.filter(isOne)
    if (others.length > 0) figures.push(speedOver(about(name), aim, auto, others))
  }
  over('Auto over the best fixed slot', atLeast(0.98), ({ model, slot }) => model === PROPOSED && slot !== null)
  if (regime >= 50) {
    over('over pipelined Top2', above(1), ({ model, strategy }) => model === 'Top2' && strategy === 'Pipelined')
    over('over sequential Top1', above(1), ({ model }) => model === 'Top1')
    over('over SharedExpert', above(1), ({ model }) => model === 'SharedExpert')
  }
  figures.push(
    predictionError(
      about('error of prediction'),
      lines.filter(({ model }) => model === PROPOSED),
    ),
  )
  return figures
}

const medianTime = (line: Line, rounds: readonly number[]) =>
  median(rounds.map(round => line.rounds[round]?.milliseconds ?? Number.NaN))

/** The speed of a line over that of the fastest of others; every line does the same tokens. */
function speedOver(name: string, aim: Aim, line: Line, others: readonly Line[]): Figure {
  const statistic = (rounds: readonly number[]) =>
    Math.min(...others.map(other => medianTime(other, rounds))) / medianTime(line, rounds)
  return figureOf({ name, unit: 'x', aim, samples: [...line.rounds.keys()], statistic })
}

function predictionError(name: string, lines: readonly Line[]): Figure {
  const rounds = [...(lines[0]?.rounds.keys() ?? [])]
  const errorOf = (line: Line, drawn: readonly number[]) =>
    Math.abs((line.predictedOverMeasured * medianTime(line, rounds)) / medianTime(line, drawn) - 1)
  const statistic = (drawn: readonly number[]) => Math.max(...lines.map(line => errorOf(line, drawn)))
  return figureOf({ name, unit: '', aim: atMost(0.1), samples: rounds, statistic })
}

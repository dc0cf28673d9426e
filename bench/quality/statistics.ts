// Summarises the results of runs in a line for each kind. Pure.

import { type Figure, figureOf } from '../turns/figures.ts'
import type { Load } from './load.ts'

export interface Spread {
  mean: number
  least: number
  most: number
  /** Standard deviation of a sample (n - 1), or null for a single value. */
  deviation: number | null
}

/** Throws a RangeError if there are no values. */
export function spread(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('a spread needs at least one value')
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return {
    mean,
    least: Math.min(...values),
    most: Math.max(...values),
    deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : null,
  }
}

/** The part of a run's result that a line needs. */
export interface Measured {
  job: { kind: string; seed: number }
  evaluationLoss: number
  load?: Load | undefined
}

/** The loss of each kind less that of the baseline, with the seeds as samples. */
export function figuresOfLosses(runs: readonly Measured[], baseline: string): Figure[] {
  const lossOf = (kind: string) => new Map(runs.filter(({ job }) => job.kind === kind).map(run => [run.job.seed, run]))
  const known = lossOf(baseline)
  const kinds = [...new Set(runs.map(({ job }) => job.kind))].filter(kind => kind !== baseline)
  return kinds.flatMap(kind => {
    const samples = [...lossOf(kind)].flatMap(([seed, { evaluationLoss }]) => {
      const other = known.get(seed)
      return other === undefined ? [] : [evaluationLoss - other.evaluationLoss]
    })
    if (samples.length === 0) return []
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    return [figureOf({ name: `held-out loss, ${kind} less ${baseline}`, unit: 'nats', samples, statistic: mean })]
  })
}

export interface Comparison {
  /**
   * Loss of the kind less the loss of the other kind with the same seed. Below 0 the kind is
   * better.
   */
  difference: Spread
  /** Seeds in which the kind's loss is lower. */
  lower: number
  seeds: number
}

/**
 * Compares runs of two kinds seed by seed. Undefined if they have no seed in common. Throws if two
 * runs of a kind have the same seed. /
 */
export function compare(runs: readonly Measured[], others: readonly Measured[]): Comparison | undefined {
  const bySeed = (list: readonly Measured[]) => {
    const losses = new Map(list.map(({ job, evaluationLoss }) => [job.seed, evaluationLoss]))
    if (losses.size !== list.length) throw new Error(`two runs of ${list[0]?.job.kind} have the same seed`)
    return losses
  }
  const known = bySeed(others)
  const differences = [...bySeed(runs)].flatMap(([seed, loss]) => {
    const other = known.get(seed)
    return other === undefined ? [] : [loss - other]
  })
  if (differences.length === 0) return undefined
  const lower = differences.filter(difference => difference < 0).length
  return { difference: spread(differences), lower, seeds: differences.length }
}

export interface Line {
  kind: string
  parameters: number
  /** Parameters that one token passes through. */
  active: number
  loss: Spread
  /** Undefined for the baseline itself, and if the baseline was not run. */
  toBaseline: Comparison | undefined
  /** Undefined for Dense. */
  maxOverMean: Spread | undefined
  dropped: Spread | undefined
}

/** A line for each kind, in the order in which the kinds first appear. */
export function linesOf(
  runs: readonly Measured[],
  parameters: (kind: string) => { total: number; active: number },
  baseline: string,
): Line[] {
  const byKind = Map.groupBy(runs, ({ job }) => job.kind)
  return [...byKind].map(([kind, own]) => {
    const loads = own.flatMap(({ load }) => (load ? [load] : []))
    const of = (value: (load: Load) => number) => (loads.length > 0 ? spread(loads.map(value)) : undefined)
    const { total, active } = parameters(kind)
    return {
      kind,
      parameters: total,
      active,
      loss: spread(own.map(({ evaluationLoss }) => evaluationLoss)),
      toBaseline: kind === baseline ? undefined : compare(own, byKind.get(baseline) ?? []),
      maxOverMean: of(load => load.maxOverMean),
      dropped: of(load => load.dropped),
    }
  })
}

/** A statement that one kind is better than another, and what these seeds say about it. */
export interface Claim {
  better: string
  than: string
  comparison: Comparison
  /** `holds`: better with every seed. `reversed`: worse with every seed. Otherwise `undecided`. */
  verdict: 'holds' | 'reversed' | 'undecided'
}

/**
 * Claims that each kind of `order` is better than every kind after it. The benchmark passes the
 * order of the table of GPT2-MoE in arXiv 2404.05019. Kinds that were not run are left out. /
 */
export function claims(runs: readonly Measured[], order: readonly string[]): Claim[] {
  const byKind = Map.groupBy(runs, ({ job }) => job.kind)
  const pairs = order.flatMap((better, at) => order.slice(at + 1).map(than => ({ better, than })))
  return pairs.flatMap(({ better, than }) => {
    const comparison = compare(byKind.get(better) ?? [], byKind.get(than) ?? [])
    if (!comparison) return []
    const { lower, seeds, difference } = comparison
    const verdict = lower === seeds ? 'holds' : difference.least > 0 ? 'reversed' : 'undecided'
    return [{ better, than, comparison, verdict }]
  })
}

// From the results of runs to a line per kind. Pure.

import type { Load } from './load.ts'

export interface Spread {
  mean: number
  least: number
  most: number
  /** Of a sample (n - 1); null where there is one value. */
  deviation: number | null
}

/** Throws a RangeError where there is no value. */
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

/** What a line needs of a run. */
export interface Measured {
  job: { kind: string; seed: number }
  evaluationLoss: number
  load?: Load | undefined
}

export interface Comparison {
  /** Of the differences of runs with the same seed, the other's loss taken away: below 0 the kind is better. */
  difference: Spread
  /** Seeds in which the kind's loss is lower. */
  lower: number
  seeds: number
}

/** Runs of two kinds seed by seed; undefined where they have no seed in common. Throws where a seed is there twice. */
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
  /** Those that one token passes through. */
  active: number
  loss: Spread
  /** Undefined for the baseline itself and where it was not run. */
  toBaseline: Comparison | undefined
  /** Undefined for Dense. */
  maxOverMean: Spread | undefined
  dropped: Spread | undefined
}

/** A line per kind, in the order in which kinds first appear. */
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

/** Whether a kind is better than another as far as these seeds say. */
export interface Claim {
  better: string
  than: string
  comparison: Comparison
  /** Better in every seed, worse in every seed, or neither. */
  verdict: 'holds' | 'reversed' | 'undecided'
}

/** The order of arXiv 2404.05019, table of GPT2-MoE: every kind at least as good as the next. Kinds that were not run are left out. */
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

// Calculates ratios with intervals from the figures of two versions, measured in pairs. Pure.

import { median } from '../../worker/median.ts'
import { bounds, type Figure, resampled } from '../turns/figures.ts'

export interface Pair {
  before: ReadonlyMap<string, number>
  after: ReadonlyMap<string, number>
}

export interface Ratio {
  name: string
  /** Medians over the pairs. */
  before: number
  after: number
  /** Geometric mean of the pairs' ratios, after over before, with its 95 % bootstrap interval. */
  ratio: number
  low: number
  high: number
}

const RESAMPLES = 10_000

/**
 * Every number of a benchmark's JSON whose key matches the pattern, under a name made of the keys
 * and the settings of the rows on the way to it.
 */
export function figuresOf(result: unknown, pattern: RegExp): Map<string, number> {
  const figures = new Map<string, number>()
  const visit = (value: unknown, path: readonly string[], key: string) => {
    if (typeof value === 'number') {
      if (pattern.test(key)) figures.set([...path, key].join(' '), value)
    } else if (Array.isArray(value)) {
      for (const [index, each] of value.entries()) visit(each, [...path, labelOf(each) ?? String(index)], '')
    } else if (typeof value === 'object' && value !== null) {
      const inner = key === '' ? path : [...path, key]
      for (const [name, each] of Object.entries(value)) visit(each, inner, name)
    }
  }
  visit(result, [], '')
  return figures
}

/** A row is known by its settings, such as model or regime, and not by measured values. */
function labelOf(row: unknown): string | undefined {
  if (typeof row !== 'object' || row === null) return undefined
  const named = Object.entries(row).filter(
    ([key, value]) => IDENTITY.has(key) && value !== null && typeof value !== 'object',
  )
  return named.length === 0 ? undefined : named.map(([, value]) => String(value)).join(' ')
}

const IDENTITY: ReadonlySet<string> = new Set([
  'model',
  'kind',
  'regime',
  'phase',
  'strategy',
  'hidden',
  'linkMbit',
  'name',
])

/** A version is slower if the whole interval of a ratio lies below this. */
const SLOWER = 0.98

export const isSlower = ({ high }: Ratio): boolean => high < SLOWER

/** The ratios as figures of a benchmark. */
export const figuresOfRatios = (ratios: readonly Ratio[]): Figure[] =>
  ratios.map(ratio => ({
    name: `${ratio.name}, new over old`,
    value: ratio.ratio,
    unit: 'x',
    aim: `interval reaches ${SLOWER}`,
    met: !isSlower(ratio),
    low: ratio.low,
    high: ratio.high,
  }))

/** One ratio for each figure that every run of both versions has. */
export function ratiosOf(pairs: readonly Pair[]): Ratio[] {
  const [first] = pairs
  if (first === undefined) return []
  const names = [...first.before.keys()].filter(name =>
    pairs.every(pair => pair.before.has(name) && pair.after.has(name)),
  )
  return names.map(name => {
    const before = pairs.map(pair => pair.before.get(name) ?? Number.NaN)
    const after = pairs.map(pair => pair.after.get(name) ?? Number.NaN)
    const logs = after.map((value, index) => Math.log(value / (before[index] ?? Number.NaN)))
    const { low, high } = bounds(resampled(logs, mean, RESAMPLES))
    return {
      name,
      before: median(before),
      after: median(after),
      ratio: Math.exp(mean(logs)),
      low: Math.exp(low),
      high: Math.exp(high),
    }
  })
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

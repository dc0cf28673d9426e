// The figures of a benchmark, each with what is aimed at and an interval. Pure.

import { median } from '../../worker/median.ts'

/** One figure in the JSON file of a benchmark. */
export interface Figure {
  name: string
  value: number
  unit: string
  /** The documented target, such as `>= 1.6`; null if there is none. */
  aim: string | null
  /** Whether the value reaches the aim; null without one. */
  met: boolean | null
  /** The 95 % bootstrap interval of the value; null with fewer than two samples. */
  low: number | null
  high: number | null
}

export interface Aim {
  text: string
  isMet: (value: number) => boolean
}

export const atLeast = (limit: number): Aim => ({ text: `>= ${limit}`, isMet: value => value >= limit })
export const atMost = (limit: number): Aim => ({ text: `<= ${limit}`, isMet: value => value <= limit })
export const above = (limit: number): Aim => ({ text: `> ${limit}`, isMet: value => value > limit })

const RESAMPLES = 2000

/**
 * The statistic of samples drawn with replacement, the smallest first. The seed is fixed, so that
 * an interval can be calculated again.
 */
export function resampled<T>(
  samples: readonly T[],
  statistic: (samples: readonly T[]) => number,
  times = RESAMPLES,
): number[] {
  let state = 1
  const random = () => {
    // The linear congruential generator of Numerical Recipes, 32 bits.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  const draw = () =>
    samples.flatMap(() => {
      const index = Math.floor(random() * samples.length)
      return samples.slice(index, index + 1)
    })
  return Array.from({ length: times }, () => statistic(draw())).toSorted((a, b) => a - b)
}

/** The bounds between which 95 % of sorted values lie. */
export function bounds(sorted: readonly number[]): { low: number; high: number } {
  const value = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN
  return { low: value(0.025), high: value(0.975) }
}

export interface Measured<T> {
  name: string
  unit: string
  aim?: Aim | undefined
  /** One for each turn or round. */
  samples: readonly T[]
  statistic: (samples: readonly T[]) => number
}

/** The figure of a statistic over samples. */
export function figureOf<T>({ name, unit, aim, samples, statistic }: Measured<T>): Figure {
  const value = statistic(samples)
  const interval = samples.length > 1 ? bounds(resampled(samples, statistic)) : { low: null, high: null }
  return { name, value, unit, aim: aim?.text ?? null, met: aim === undefined ? null : aim.isMet(value), ...interval }
}

/** The figure of a median. */
export const medianOf = (measured: Omit<Measured<number>, 'statistic'>): Figure =>
  figureOf({ ...measured, statistic: median })

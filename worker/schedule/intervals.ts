// Stretches of time, in microseconds.

export interface Interval {
  start: number
  end: number
}

export const lengthOf = ({ start, end }: Interval): number => Math.max(0, end - start)

/** How long both last at the same time. */
export const common = (a: Interval, b: Interval | undefined): number =>
  b === undefined ? 0 : Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start))

/** Calls `visit` with the index of each interval that a span shares time with, and that time. */
export type Sweep = (span: Interval, visit: (index: number, shared: number) => void) => void

/**
 * Finds what spans share with `intervals`, which must be in ascending order. The spans must be
 * asked for in ascending order as well, so that all of them together take linear time.
 */
export function sweep(intervals: readonly Interval[]): Sweep {
  let first = 0
  return (span, visit) => {
    while ((intervals[first]?.end ?? Number.POSITIVE_INFINITY) <= span.start) first++
    for (let at = first; (intervals[at]?.start ?? Number.POSITIVE_INFINITY) < span.end; at++)
      visit(at, common(span, intervals[at]))
  }
}

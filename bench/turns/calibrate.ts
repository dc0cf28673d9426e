// Finds the link rate at which communication takes a given share of the MoE layer's time. Pure.

/** The share, 0 to 1, that was measured at a rate in bits per second. */
export interface Trial {
  rate: number
  share: number
}

const odds = (share: number) => share / (1 - share)

/** Shares that differ by at most so many percentage points count as equal. */
export const TOLERANCE_PERCENT = 0.5

/**
 * The time of transfers is inversely proportional to the rate and the rest is constant, so
 * share / (1 - share) falls as 1 / rate. After the second trial the exponent comes from the last
 * two trials, because latency and bursts do not scale.
 */
export function nextRate(trials: readonly Trial[], target: number): number {
  const last = trials.at(-1)
  if (!last) throw new Error('no trial to start from')
  const before = trials.at(-2)
  const slope = before ? exponent(before, last) : -1
  return last.rate * (odds(target) / odds(last.share)) ** (1 / slope)
}

/** Clamped to a factor of two around -1, because noise between near trials could give any value. */
function exponent(a: Trial, b: Trial): number {
  const measured = Math.log(odds(b.share) / odds(a.share)) / Math.log(b.rate / a.rate)
  return Number.isFinite(measured) ? Math.min(-0.5, Math.max(-2, measured)) : -1
}

/** The trial whose share is nearest to the target. */
export const nearest = (trials: readonly Trial[], target: number): Trial | undefined =>
  trials.toSorted((a, b) => Math.abs(a.share - target) - Math.abs(b.share - target))[0]

export const isNear = ({ share }: Trial, target: number) => Math.abs(share - target) * 100 <= TOLERANCE_PERCENT

// Which link rate makes communication a given share of the MoE layer's time. Pure.

/** A measured share, 0 to 1, at a rate, bits per second. */
export interface Trial {
  rate: number
  share: number
}

const odds = (share: number) => share / (1 - share)

/** Shares closer than this, in percentage points, are taken to be the same. */
export const TOLERANCE_PERCENT = 0.5

/**
 * Transfers take time in inverse proportion to the rate, the rest takes the same: share / (1 - share) falls as 1 / rate. From the second trial on
 * the exponent is that of the last two trials, for latency and bursts do not scale.
 */
export function nextRate(trials: readonly Trial[], target: number): number {
  const last = trials.at(-1)
  if (!last) throw new Error('no trial to start from')
  const before = trials.at(-2)
  const slope = before ? exponent(before, last) : -1
  return last.rate * (odds(target) / odds(last.share)) ** (1 / slope)
}

/** Within a factor of two of what physics says: noise between near trials would give anything. */
function exponent(a: Trial, b: Trial): number {
  const measured = Math.log(odds(b.share) / odds(a.share)) / Math.log(b.rate / a.rate)
  return Number.isFinite(measured) ? Math.min(-0.5, Math.max(-2, measured)) : -1
}

/** The trial whose share is nearest. */
export const nearest = (trials: readonly Trial[], target: number): Trial | undefined =>
  trials.toSorted((a, b) => Math.abs(a.share - target) - Math.abs(b.share - target))[0]

export const isNear = ({ share }: Trial, target: number) => Math.abs(share - target) * 100 <= TOLERANCE_PERCENT

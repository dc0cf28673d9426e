// Times as Kubernetes writes them, and as numbers: milliseconds since 1970.

/** RFC 3339 in whole seconds, rounded up, so that a wait for this time never ends too early. */
export const timestamp = (milliseconds: number): string =>
  new Date(Math.ceil(milliseconds / 1000) * 1000).toISOString().replace('.000Z', 'Z')

/**
 * RFC 3339 to the millisecond, for times that the operator waits for. Rounding up to a whole
 * second would make a short back-off much longer.
 */
export const exactTime = (milliseconds: number): string =>
  new Date(Math.ceil(milliseconds)).toISOString().replace('.000Z', 'Z')

/** Milliseconds since 1970, undefined if there is no time or it cannot be parsed. */
export function instant(time: string | undefined): number | undefined {
  const value = Date.parse(time ?? '')
  return Number.isNaN(value) ? undefined : value
}

export function earliest(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter(time => time !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

/** Whether a time has come. A time that is not set never comes. */
export const isPast = (time: number | undefined, now: number): boolean => time !== undefined && now >= time

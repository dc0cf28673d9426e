// Numbers on the command line: a wrong one is refused with the range that is allowed.

import { InvalidArgumentError } from 'commander'

type Parse = (text: string) => number

export const wholeNumber =
  (least: number): Parse =>
  text => {
    const value = numberIn(text)
    if (!Number.isSafeInteger(value) || value < least)
      throw new InvalidArgumentError(`Give a whole number of at least ${least}.`)
    return value
  }

export const wholeNumbers = (text: string): number[] => text.split(',').map(wholeNumber(1))

export const positive: Parse = text => {
  const value = numberIn(text)
  if (!(value > 0)) throw new InvalidArgumentError('Give a number greater than 0.')
  return value
}

export const notNegative: Parse = text => {
  const value = numberIn(text)
  if (!(value >= 0)) throw new InvalidArgumentError('Give a number of at least 0.')
  return value
}

/** At least 0 and less than 1. */
export const share: Parse = text => {
  const value = numberIn(text)
  if (!(value >= 0 && value < 1)) throw new InvalidArgumentError('Give a number of at least 0 and less than 1.')
  return value
}

export const between =
  (least: number, most: number): Parse =>
  text => {
    const value = numberIn(text)
    if (!(value >= least && value <= most)) throw new InvalidArgumentError(`Give a number from ${least} to ${most}.`)
    return value
  }

/** NaN for a text that is not a finite number; Number('') would be 0. */
function numberIn(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  return Number.isFinite(value) ? value : Number.NaN
}

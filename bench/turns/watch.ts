// Runs the turns of a measurement, and runs a turn again while something else took too much of the
// machine. At the end it says whether the machine was its own.

import { identify, type ProcessIdentity } from '../../tools/process.ts'
import { type Load, readLoad, type Taken, takenBetween } from './load.ts'

/** A turn is quiet while others and the hypervisor took at most this share of the processors. */
export const LIMIT_PERCENT = 5
/** A turn that is disturbed is run so many times at most. */
const TRIES = 3

export const isQuiet = ({ others, stolen }: Taken): boolean => 100 * (others + stolen) <= LIMIT_PERCENT

/**
 * Whether a disturbed turn is run again. The number of repeated turns is limited for the whole
 * measurement, so that on a busy machine it ends soon after it would have ended. Pure.
 */
export const mayRepeat = ({ tries, turns, repeated }: { tries: number; turns: number; repeated: number }): boolean =>
  tries < TRIES && repeated < 3 + turns / 4

/** The disturbance of a measurement, as a part of its JSON file. */
export interface Disturbance {
  limitPercent: number
  turns: number
  /** Runs of turns whose results were thrown away. */
  repeated: number
  /** Turns that count although they were disturbed. */
  disturbed: number
  /** The most in any turn that counts. */
  othersPercent: number
  stolenPercent: number
}

/** Pure. */
export function disturbanceOf(kept: readonly Taken[], repeated: number): Disturbance {
  const most = (value: (taken: Taken) => number) => 100 * Math.max(0, ...kept.map(value))
  return {
    limitPercent: LIMIT_PERCENT,
    turns: kept.length,
    repeated,
    disturbed: kept.filter(taken => !isQuiet(taken)).length,
    othersPercent: most(taken => taken.others),
    stolenPercent: most(taken => taken.stolen),
  }
}

const percent = (value: number) => `${value.toFixed(1)} %`

/** A sentence for the end of a measurement. Pure. */
export function sentenceOf(disturbance: Disturbance): string {
  const { limitPercent, turns, repeated, disturbed, othersPercent, stolenPercent } = disturbance
  const took = `others took at most ${percent(othersPercent)} of the processors, the hypervisor ${percent(stolenPercent)}`
  const again = repeated === 0 ? '' : `; ${repeated} were repeated`
  if (disturbed === 0) return `the machine was this measurement's own: in ${turns} turns ${took}${again}`
  return (
    `THE MACHINE WAS NOT ITS OWN in ${disturbed} of ${turns} turns (more than ${limitPercent} %): ${took}${again}. ` +
    'Stop other programs and measure again before you quote a figure.'
  )
}

export interface WatchOptions {
  /** Processes besides this one that belong to the measurement, with all below them. */
  roots?: readonly ProcessIdentity[]
  read?: (roots: readonly ProcessIdentity[]) => Load
}

export class Watch {
  readonly #roots: readonly ProcessIdentity[]
  readonly #read: (roots: readonly ProcessIdentity[]) => Load
  readonly #kept: Taken[] = []
  #repeated = 0

  constructor({ roots = [], read = readLoad }: WatchOptions = {}) {
    this.#roots = [identify(process.pid), ...roots]
    this.#read = read
  }

  /** Runs some work once, and says what others took of the machine meanwhile. */
  async once<T>(work: () => Promise<T>): Promise<{ value: T; taken: Taken }> {
    const before = this.#read(this.#roots)
    const value = await work()
    return { value, taken: takenBetween(before, this.#read(this.#roots)) }
  }

  /** The result of a turn's quietest run. */
  async turn<T>(work: () => Promise<T>): Promise<T> {
    let best = await this.once(work)
    for (let tries = 1; !isQuiet(best.taken); tries++) {
      if (!mayRepeat({ tries, turns: this.#kept.length, repeated: this.#repeated })) break
      this.#repeated++
      const again = await this.once(work)
      const loss = ({ others, stolen }: Taken) => others + stolen
      if (loss(again.taken) < loss(best.taken)) best = again
    }
    this.#kept.push(best.taken)
    return best.value
  }

  get disturbance(): Disturbance {
    return disturbanceOf(this.#kept, this.#repeated)
  }
}

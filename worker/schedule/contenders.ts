// Schedules whose predictions are too close to tell which is faster. Each is tried for a few steps,
// and the fastest one is kept.

import { median } from '../median.ts'
import { better } from './choose.ts'
import type { Candidate, Choice } from './types.ts'

/**
 * A schedule is tried if its predicted step is longer than the best one by at most this share,
 * which is about the error of a prediction.
 */
const CLOSE = 0.03
/** The largest number of schedules that are tried. */
const MOST = 4
/** Steps of each schedule before those that count. */
const WARM_UP = 1
/** Steps of each schedule whose median counts. */
const MEASURED = 3
/**
 * Another schedule than the best predicted is taken only if it is faster by this share. Less is
 * noise.
 */
const GAIN = 0.01

/**
 * The schedules to try, at most four: the best predicted first, then the best of other slots whose
 * prediction is within 3 % of it. Schedules that differ only in chunks are too similar to be tried.
 */
export function contenders(candidates: readonly Candidate[]): Candidate[] {
  const bySlots = new Map<string, Candidate>()
  for (const candidate of candidates) {
    const slots = slotsOf(candidate.choice)
    const known = bySlots.get(slots)
    if (!known || better(candidate, known)) bySlots.set(slots, candidate)
  }
  const ranked = [...bySlots.values()].toSorted((a, b) => (better(a, b) ? -1 : Number(better(b, a))))
  const limit = (ranked[0]?.predicted ?? 0) * (1 + CLOSE)
  return ranked.filter(({ predicted }) => predicted <= limit).slice(0, MOST)
}

const slotsOf = (choice: Choice) =>
  choice.strategy === 'Shortcut' ? `${choice.forwardSlot} ${choice.backwardSlot}` : choice.strategy

/** A trial of several schedules. From the same times, every rank decides the same. */
export class Trial {
  readonly #times: number[][]
  #current = 0
  #warming = WARM_UP

  /** `count` is the number of contenders. The first one has the best prediction. */
  constructor(count: number) {
    this.#times = Array.from({ length: count }, () => [])
  }

  /** Index of the contender that runs the next step. */
  get current(): number {
    return this.#current
  }

  get over(): boolean {
    return this.#current >= this.#times.length
  }

  /** Takes the time of a step with the current contender, in any unit. */
  observe(time: number): void {
    if (this.#warming > 0) {
      this.#warming--
      return
    }
    const times = this.#times[this.#current]
    if (!times || times.push(time) < MEASURED) return
    this.#current++
    this.#warming = WARM_UP
  }

  /** Median time of each contender that has had all its steps. */
  get medians(): number[] {
    return this.#times.filter(({ length }) => length === MEASURED).map(median)
  }

  /** Index of the fastest contender; of the first one unless another is faster by more than 1 %. */
  get best(): number {
    const { medians } = this
    const [first = Number.POSITIVE_INFINITY] = medians
    const fastest = medians.indexOf(Math.min(...medians))
    return (medians[fastest] ?? first) < first * (1 - GAIN) ? fastest : 0
  }
}

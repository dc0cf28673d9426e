// Predictions that are too close to be believed: the schedules worth a few steps each, and the fastest of them as measured.

import { median } from '../median.ts'
import { better } from './choose.ts'
import type { Candidate, Choice } from './types.ts'

/** Share by which a prediction must be ahead for the other not to be tried: the error of a step's prediction is about that. */
const CLOSE = 0.03
const MOST = 4
/** Steps with each: the first warms up, of the rest the median counts. */
const WARM_UP = 1
const MEASURED = 3
/** Share by which another must be faster than the best predicted to be taken: less is noise. */
const GAIN = 0.01

/**
 * The best predicted first, then the best of other slots predicted within 3 % of it; at most four. Chunks of the same slots differ too little
 * to be worth steps.
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

/** Fed with the same times on every rank, it decides the same on every rank. */
export class Trial {
  readonly #times: number[][]
  #current = 0
  #warming = WARM_UP

  /** `count` contenders, the best predicted first. */
  constructor(count: number) {
    this.#times = Array.from({ length: count }, () => [])
  }

  /** The contender that the next step is to run with. */
  get current(): number {
    return this.#current
  }

  get over(): boolean {
    return this.#current >= this.#times.length
  }

  /** Takes the time, any unit, of a step with the current contender. */
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

  /** Median time of each contender that has had its steps. */
  get medians(): number[] {
    return this.#times.filter(({ length }) => length === MEASURED).map(median)
  }

  /** The fastest of those, the best predicted unless another is faster by over 1 %. */
  get best(): number {
    const { medians } = this
    const [first = Number.POSITIVE_INFINITY] = medians
    const fastest = medians.indexOf(Math.min(...medians))
    return (medians[fastest] ?? first) < first * (1 - GAIN) ? fastest : 0
  }
}

// How fast writes go out: at most `atOnce` together and `perSecond` after that.

export type PaceOptions = { perSecond: number; atOnce: number }

export class Pace {
  readonly #interval: number
  readonly #ahead: number
  /** When the next one would go if they all kept their distance; it may lie as far back as `atOnce` allows. */
  #next = Number.NEGATIVE_INFINITY

  constructor({ perSecond, atOnce }: PaceOptions) {
    this.#interval = 1000 / perSecond
    this.#ahead = (atOnce - 1) * this.#interval
  }

  /** Takes a turn; milliseconds from `now` (of one clock, always) until it has come. */
  turn(now: number): number {
    const at = Math.max(this.#next, now - this.#ahead)
    this.#next = at + this.#interval
    return Math.max(0, at - now)
  }
}

// Limits the rate of writes: at most `atOnce` together, and `perSecond` after that.

export type PaceOptions = { perSecond: number; atOnce: number }

export class Pace {
  readonly #interval: number
  /** Milliseconds by which a burst may run ahead of the even rate. */
  readonly #ahead: number
  /** When the next write is due at the even rate. A pause lets it fall behind by up to `#ahead`. */
  #next = Number.NEGATIVE_INFINITY

  constructor({ perSecond, atOnce }: PaceOptions) {
    this.#interval = 1000 / perSecond
    this.#ahead = (atOnce - 1) * this.#interval
  }

  /**
   * Reserves the next write and returns the milliseconds to wait for it. `now` has to come from the
   * same clock each time.
   */
  turn(now: number): number {
    const at = Math.max(this.#next, now - this.#ahead)
    this.#next = at + this.#interval
    return Math.max(0, at - now)
  }
}

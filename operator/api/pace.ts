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

  /** Milliseconds until a write may be sent. `now` has to come from the same clock each time. */
  wait(now: number): number {
    return Math.max(0, this.#next - now)
  }

  /** Counts a write that is sent now. */
  take(now: number): void {
    this.#next = Math.max(this.#next, now - this.#ahead) + this.#interval
  }
}

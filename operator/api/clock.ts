// The API server's time. Deadlines are compared with times that the server and the nodes wrote, so
// a wrong clock of this machine must not make a deadline pass.

/** Tolerance: the `date` header has whole seconds, and an answer needs time to arrive. */
const UNCERTAIN_MILLISECONDS = 2000

export class Clock {
  #ahead = 0

  /** `date` is the header of an answer to a request that was sent at `sent`, by our clock. */
  learn(date: unknown, sent: number): void {
    const theirs = typeof date === 'string' ? Date.parse(date) : Number.NaN
    if (Number.isNaN(theirs)) return
    const now = Date.now()
    const isWrong = theirs < sent - UNCERTAIN_MILLISECONDS || theirs > now + UNCERTAIN_MILLISECONDS
    this.#ahead = isWrong ? now - theirs : 0
  }

  /** Milliseconds since 1970. */
  now(): number {
    return Date.now() - this.#ahead
  }
}

export const clock = new Clock()

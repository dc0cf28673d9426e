// The API server's time. Deadlines are judged against times that it and the nodes wrote, so a wrong clock of this machine must not make them pass.

/** The header has whole seconds, and an answer takes its time. */
const UNCERTAIN_MILLISECONDS = 2000

export class Clock {
  #ahead = 0

  /** From the `date` of an answer of the server, which is on its way since `sent`, by our clock. */
  learn(date: unknown, sent: number): void {
    const theirs = typeof date === 'string' ? Date.parse(date) : Number.NaN
    if (Number.isNaN(theirs)) return
    const now = Date.now()
    const off = theirs < sent - UNCERTAIN_MILLISECONDS || theirs > now + UNCERTAIN_MILLISECONDS
    this.#ahead = off ? now - theirs : 0
  }

  /** Milliseconds since 1970. */
  now(): number {
    return Date.now() - this.#ahead
  }
}

export const clock = new Clock()

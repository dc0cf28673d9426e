// The API server's time. Deadlines are compared with times that the server and the nodes wrote, so
// neither a wrong clock of this machine nor one of a few answers may make a deadline pass.

/** Tolerance: the `date` header has whole seconds, and an answer needs time to arrive. */
const UNCERTAIN_MILLISECONDS = 2000
/** Answers that are remembered. Among so many, a third of wrong ones is never half of them. */
const ANSWERS = 127
/** Older answers are forgotten, because the steady clock stands still while a machine sleeps. */
const REMEMBERED_MILLISECONDS = 60_000

/** The server's clock less the steady clock, by one answer, and how far this may be off. */
type Answer = { at: number; offset: number; uncertain: number }
/** The clocks of this machine, which tests replace. */
export type Clocks = { wall: () => number; steady: () => number }

export class Clock {
  readonly #clocks: Clocks
  #answers: Answer[] = []
  /** The answers by their offset, until another one comes. */
  #sorted: Answer[] | undefined

  constructor(clocks: Clocks = { wall: () => Date.now(), steady: () => performance.now() }) {
    this.#clocks = clocks
  }

  /** The steady clock, which never jumps. The time of a request is given by it. */
  get steady(): number {
    return this.#clocks.steady()
  }

  /** `date` is the header of an answer to a request sent at `sent`, by the steady clock. */
  learn(date: unknown, sent: number): void {
    const theirs = typeof date === 'string' ? Date.parse(date) : Number.NaN
    if (Number.isNaN(theirs)) return
    const now = this.#clocks.steady()
    // The header is half a second old on average.
    const offset = theirs + 500 - (sent + now) / 2
    const answer = { at: now, offset, uncertain: UNCERTAIN_MILLISECONDS + (now - sent) / 2 }
    const known = this.#answers.filter(({ at }) => now - at < REMEMBERED_MILLISECONDS)
    this.#answers = [...known.slice(1 - ANSWERS), answer]
    this.#sorted = undefined
  }

  /** Milliseconds since 1970, by the median of the last answers. */
  now(): number {
    return this.#at(1 / 2)
  }

  /**
   * A time that three quarters of the last answers have reached. What cannot be taken back waits
   * until a deadline is over by this time, too.
   */
  least(): number {
    return this.#at(1 / 4)
  }

  /** This machine's clock is finer than the headers, so it is taken where it agrees with them. */
  #at(part: number): number {
    this.#sorted ??= this.#answers.toSorted((a, b) => a.offset - b.offset)
    const answer = this.#sorted[Math.floor((this.#sorted.length - 1) * part)]
    const ours = this.#clocks.wall()
    if (answer === undefined) return ours
    const theirs = this.#clocks.steady() + answer.offset
    return Math.abs(theirs - ours) <= answer.uncertain ? ours : theirs
  }
}

export const clock = new Clock()

// The keys of one namespace that wait in the queue. Urgent keys go first. While they come in a
// burst, ordinary keys wait even at moments without an urgent key, but not for long.

/** Once an ordinary key has waited for this time (ms), every second key is an ordinary one. */
const PATIENCE = 20_000
/** This many urgent keys within this time are a burst, in which the next one is expected soon. */
const BURST_KEYS = 16
const BURST_MILLISECONDS = 3000

/** A key, and the time at which it was added. */
export type Entry = [key: string, added: number]

export class Lane {
  /** Keys in the order in which they are worked on, with the time at which they were added. */
  readonly #urgent = new Map<string, number>()
  readonly #ordinary = new Map<string, number>()
  /** The last BURST_KEYS urgent keys, with the time at which each was last added. */
  readonly #lastUrgent = new Map<string, number>()
  /** The last key that was taken had waited for longer than PATIENCE. */
  #tookOverdue = false

  get depth(): number {
    return this.#urgent.size + this.#ordinary.size
  }

  /** Whether urgent keys wait, or more of them are expected soon. */
  isBusy(now: number): boolean {
    return this.#urgent.size > 0 || this.#burstEnd() > now
  }

  /** Whether nothing is lost if the lane is forgotten. */
  isIdle(now: number): boolean {
    const last = [...this.#lastUrgent.values()].at(-1) ?? Number.NEGATIVE_INFINITY
    return this.depth === 0 && last + BURST_MILLISECONDS <= now
  }

  /** Returns whether the key is new here. */
  add(key: string, isUrgent: boolean, now: number): boolean {
    if (this.#urgent.has(key)) return false
    const waitsSince = this.#ordinary.get(key)
    if (isUrgent) {
      this.#ordinary.delete(key)
      this.#urgent.set(key, waitsSince ?? now)
      this.#noteUrgent(key, now)
    } else if (waitsSince === undefined) this.#ordinary.set(key, now)
    return waitsSince === undefined
  }

  /** The milliseconds after which `next` has a key. Infinite if there is none. */
  wait(now: number): number {
    const [ordinary] = this.#ordinary.values()
    if (this.#urgent.size > 0) return 0
    if (ordinary === undefined) return Number.POSITIVE_INFINITY
    // In a burst the next urgent key comes soon, and ordinary keys wait for the end of the burst.
    return Math.max(0, Math.min(this.#burstEnd(), ordinary + PATIENCE) - now)
  }

  /** Takes the next key to work on. Called only when `wait` is zero. */
  take(now: number): Entry | undefined {
    const urgent = this.#urgent.entries().next().value
    const ordinary = this.#ordinary.entries().next().value
    // An ordinary key that has waited for too long goes first, but not twice in a row.
    const isOverdue = ordinary !== undefined && ordinary[1] + PATIENCE < now
    const takesOrdinary = urgent === undefined || (isOverdue && !this.#tookOverdue)
    this.#tookOverdue = takesOrdinary && isOverdue
    const [keys, next] = takesOrdinary ? [this.#ordinary, ordinary] : [this.#urgent, urgent]
    if (next !== undefined) keys.delete(next[0])
    return next
  }

  /** When the present burst ends. Zero if there is none. */
  #burstEnd(): number {
    const [first] = this.#lastUrgent.values()
    return first === undefined || this.#lastUrgent.size < BURST_KEYS ? 0 : first + BURST_MILLISECONDS
  }

  #noteUrgent(key: string, now: number): void {
    this.#lastUrgent.delete(key)
    this.#lastUrgent.set(key, now)
    const [oldest] = this.#lastUrgent.keys()
    if (oldest !== undefined && this.#lastUrgent.size > BURST_KEYS) this.#lastUrgent.delete(oldest)
  }
}

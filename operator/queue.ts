// A work queue of keys. A key is never worked on twice at the same time, and adding it again while
// it waits has no effect. A key that fails comes back after a growing delay. Urgent keys go first.
// While they come in a burst, ordinary keys wait even at moments without an urgent key, but not for
// long.

export type QueueHooks = {
  /** Called when a key is added. */
  isUrgent?: (key: string) => boolean
  onAdd?: () => void
  onRetry?: () => void
  onStart?: (waitedMilliseconds: number) => void
  onDone?: (workedMilliseconds: number) => void
}

const FIRST_BACKOFF = 10
const LONGEST_BACKOFF = 300_000
/** Once an ordinary key has waited for this time (ms), every second key is an ordinary one. */
const PATIENCE = 20_000
/** This many urgent keys within this time are a burst, in which the next one is expected soon. */
const BURST_KEYS = 16
const BURST_MILLISECONDS = 3000
/** setTimeout counts in 32 bits. */
const LONGEST_TIMER = 2_147_483_647

type Entry = [key: string, added: number]

export class Queue {
  /** Keys in the order in which they are worked on, with the time at which they were added. */
  readonly #urgent = new Map<string, number>()
  readonly #ordinary = new Map<string, number>()
  /** Keys under way, with the time at which the work began. */
  readonly #working = new Map<string, number>()
  /** Keys that were added again while under way. */
  readonly #again = new Set<string>()
  readonly #delayed = new Map<string, { at: number; timer: NodeJS.Timeout }>()
  readonly #failures = new Map<string, number>()
  readonly #hooks: QueueHooks
  /** The last BURST_KEYS urgent keys, with the time at which each was last added. */
  readonly #lastUrgent = new Map<string, number>()
  /** The last key that was taken had waited for longer than PATIENCE. */
  #tookOverdue = false
  #wake: (() => void)[] = []
  /** Wakes the workers when ordinary keys need not wait any more. */
  #pause: NodeJS.Timeout | undefined
  #closed = false

  constructor(hooks: QueueHooks = {}) {
    this.#hooks = hooks
  }

  get depth(): number {
    return this.#urgent.size + this.#ordinary.size
  }

  /** Whether urgent keys wait, or more of them are expected soon. */
  get isBusy(): boolean {
    return this.#urgent.size > 0 || this.#burstEnd() > performance.now()
  }

  get delayed(): number {
    return this.#delayed.size
  }

  /** For each key under way, the milliseconds since the work on it began. */
  get underWay(): number[] {
    const now = performance.now()
    return [...this.#working.values()].map(start => now - start)
  }

  add(key: string): void {
    if (this.#closed) return
    if (this.#working.has(key)) return void this.#again.add(key)
    if (this.#urgent.has(key)) return
    const waitsSince = this.#ordinary.get(key)
    if (this.#hooks.isUrgent?.(key) === true) {
      this.#ordinary.delete(key)
      this.#urgent.set(key, waitsSince ?? performance.now())
      this.#noteUrgent(key)
    } else if (waitsSince === undefined) this.#ordinary.set(key, performance.now())
    if (waitsSince !== undefined) return
    this.#hooks.onAdd?.()
    this.#wake.shift()?.()
  }

  /** Adds a key after a delay. If it has several delays, the one that ends first counts. */
  addAfter(key: string, milliseconds: number): void {
    if (this.#closed) return
    if (milliseconds <= 0) return this.add(key)
    const at = performance.now() + milliseconds
    const waiting = this.#delayed.get(key)
    if (waiting !== undefined && waiting.at <= at) return
    clearTimeout(waiting?.timer)
    // A timer may fire almost a millisecond early. A key that comes too early, because its time is
    // longer than a timer can count, is added again by the work that finds nothing to do.
    const timer = setTimeout(
      () => {
        this.#delayed.delete(key)
        this.add(key)
      },
      Math.min(milliseconds + 1, LONGEST_TIMER),
    )
    this.#delayed.set(key, { at, timer })
  }

  /**
   * Adds a key again after a failure, with a delay of 10 ms, 20 ms and so on up to 5 minutes and a
   * random tenth of that. Returns the delay.
   */
  retry(key: string): number {
    const failures = this.#failures.get(key) ?? 0
    this.#failures.set(key, failures + 1)
    const delay = Math.min(FIRST_BACKOFF * 2 ** failures, LONGEST_BACKOFF) * (1 + Math.random() / 10)
    this.#hooks.onRetry?.()
    this.addAfter(key, delay)
    return delay
  }

  /** Called after a success: the next failure starts with the shortest delay again. */
  forget(key: string): void {
    this.#failures.delete(key)
  }

  /** Works until the queue is closed and the work under way is done. `work` must not throw. */
  async run(concurrency: number, work: (key: string) => Promise<void>): Promise<void> {
    await Promise.all(Array.from({ length: concurrency }, async () => this.#worker(work)))
  }

  close(): void {
    this.#closed = true
    for (const { timer } of this.#delayed.values()) clearTimeout(timer)
    this.#delayed.clear()
    this.#urgent.clear()
    this.#ordinary.clear()
    clearTimeout(this.#pause)
    this.#lastUrgent.clear()
    for (const wake of this.#wake.splice(0)) wake()
  }

  async #worker(work: (key: string) => Promise<void>): Promise<void> {
    while (!this.#closed) {
      const next = this.#take()
      if (next === undefined) {
        await new Promise<void>(resolve => this.#wake.push(resolve))
        continue
      }
      const [key, added] = next
      const start = performance.now()
      this.#working.set(key, start)
      this.#hooks.onStart?.(start - added)
      try {
        await work(key)
      } finally {
        this.#working.delete(key)
        this.#hooks.onDone?.(performance.now() - start)
        if (this.#again.delete(key)) this.add(key)
      }
    }
  }

  /** The next key to work on. Undefined if there is none, or if the ordinary ones have to wait. */
  #take(): Entry | undefined {
    const now = performance.now()
    const urgent = this.#urgent.entries().next().value
    const ordinary = this.#ordinary.entries().next().value
    const tookOverdue = this.#tookOverdue
    this.#tookOverdue = false

    // Without ordinary keys there is nothing to choose.
    if (ordinary === undefined) return this.#takeFrom(this.#urgent, urgent)

    // An ordinary key that has waited for too long goes first, but not twice in a row.
    const patience = ordinary[1] + PATIENCE - now
    if (patience < 0 && !(tookOverdue && urgent !== undefined)) {
      this.#tookOverdue = true
      return this.#takeFrom(this.#ordinary, ordinary)
    }

    // An urgent key goes before all others.
    if (urgent !== undefined) return this.#takeFrom(this.#urgent, urgent)

    // In a burst the next urgent key comes soon, and ordinary keys wait for the end of the burst.
    const burst = this.#burstEnd() - now
    if (burst > 0) {
      this.#wakeIn(Math.min(burst, patience))
      return undefined
    }

    return this.#takeFrom(this.#ordinary, ordinary)
  }

  #takeFrom(keys: Map<string, number>, next: Entry | undefined): Entry | undefined {
    if (next !== undefined) keys.delete(next[0])
    return next
  }

  /** When the present burst ends. Zero if there is none. */
  #burstEnd(): number {
    const [first] = this.#lastUrgent.values()
    return first === undefined || this.#lastUrgent.size < BURST_KEYS ? 0 : first + BURST_MILLISECONDS
  }

  #noteUrgent(key: string): void {
    this.#lastUrgent.delete(key)
    this.#lastUrgent.set(key, performance.now())
    const [oldest] = this.#lastUrgent.keys()
    if (oldest !== undefined && this.#lastUrgent.size > BURST_KEYS) this.#lastUrgent.delete(oldest)
  }

  #wakeIn(milliseconds: number): void {
    this.#pause ??= setTimeout(() => {
      this.#pause = undefined
      for (const wake of this.#wake.splice(0)) wake()
    }, milliseconds + 1)
  }
}

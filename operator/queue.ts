// A work queue of keys: one key is never worked on twice at the same time, and adding it while it waits or is worked on
// costs nothing. A key that fails comes back after a growing delay. Urgent keys go first, and while they come in a burst the
// others wait also where none is there just now; but nobody waits for them long.

export type QueueHooks = {
  /** Asked when a key is added. */
  isUrgent?: (key: string) => boolean
  onAdd?: () => void
  onRetry?: () => void
  onStart?: (waitedMilliseconds: number) => void
  onDone?: (workedMilliseconds: number) => void
}

const FIRST_BACKOFF = 10
const LONGEST_BACKOFF = 300_000
/** After that every other key is one that is not urgent. */
const PATIENCE = 20_000
/** So many urgent keys within so long are a burst: the next is about to come. */
const BURST_KEYS = 16
const BURST_MILLISECONDS = 3000

export class Queue {
  /** Keys in the order in which they will be worked on, with the time they were added. */
  readonly #urgent = new Map<string, number>()
  readonly #ready = new Map<string, number>()
  /** Keys being worked on, with the time that began. */
  readonly #working = new Map<string, number>()
  /** Added again while being worked on. */
  readonly #again = new Set<string>()
  readonly #delayed = new Map<string, { at: number; timer: NodeJS.Timeout }>()
  readonly #failures = new Map<string, number>()
  readonly #hooks: QueueHooks
  /** When the last BURST_KEYS urgent keys came, each for the last time. */
  readonly #came = new Map<string, number>()
  /** Whether the last key taken had waited too long: the next is an urgent one. */
  #wasOverdue = false
  #wake: (() => void)[] = []
  /** Runs while keys that are not urgent wait for the end of a burst. */
  #pause: NodeJS.Timeout | undefined
  #closed = false

  constructor(hooks: QueueHooks = {}) {
    this.#hooks = hooks
  }

  get depth(): number {
    return this.#urgent.size + this.#ready.size
  }

  /** Urgent keys wait, or more are about to come. */
  get hurries(): boolean {
    return this.#urgent.size > 0 || this.#burstEnd() > performance.now()
  }

  get delayed(): number {
    return this.#delayed.size
  }

  /** How long each key being worked on has been so, in milliseconds. */
  get underWay(): number[] {
    const now = performance.now()
    return [...this.#working.values()].map(start => now - start)
  }

  add(key: string): void {
    if (this.#closed) return
    if (this.#working.has(key)) return void this.#again.add(key)
    if (this.#urgent.has(key)) return
    const waiting = this.#ready.get(key)
    if (this.#hooks.isUrgent?.(key) === true) {
      this.#ready.delete(key)
      this.#urgent.set(key, waiting ?? performance.now())
      this.#note(key)
    } else if (waiting === undefined) this.#ready.set(key, performance.now())
    if (waiting !== undefined) return
    this.#hooks.onAdd?.()
    this.#wake.shift()?.()
  }

  /** Of two delays for one key the earlier holds. */
  addAfter(key: string, milliseconds: number): void {
    if (this.#closed) return
    if (milliseconds <= 0) return this.add(key)
    const at = performance.now() + milliseconds
    const waiting = this.#delayed.get(key)
    if (waiting !== undefined && waiting.at <= at) return
    clearTimeout(waiting?.timer)
    // A timer may be almost a millisecond early, and it counts in 32 bits; a key that comes too early is put back by whoever works on it.
    const timer = setTimeout(
      () => {
        this.#delayed.delete(key)
        this.add(key)
      },
      Math.min(milliseconds + 1, 2_147_483_647),
    )
    this.#delayed.set(key, { at, timer })
  }

  /** After a failure: 10 ms, 20 ms, … at most 5 minutes, a tenth of it random. Returns the delay. */
  retry(key: string): number {
    const failures = this.#failures.get(key) ?? 0
    this.#failures.set(key, failures + 1)
    const delay = Math.min(FIRST_BACKOFF * 2 ** failures, LONGEST_BACKOFF) * (1 + Math.random() / 10)
    this.#hooks.onRetry?.()
    this.addAfter(key, delay)
    return delay
  }

  /** After a success: the next failure starts with the shortest delay again. */
  forget(key: string): void {
    this.#failures.delete(key)
  }

  /** Works until the queue is closed; resolves when the work under way is done. `work` must not throw. */
  async run(concurrency: number, work: (key: string) => Promise<void>): Promise<void> {
    await Promise.all(Array.from({ length: concurrency }, async () => this.#worker(work)))
  }

  close(): void {
    this.#closed = true
    for (const { timer } of this.#delayed.values()) clearTimeout(timer)
    this.#delayed.clear()
    this.#urgent.clear()
    this.#ready.clear()
    clearTimeout(this.#pause)
    this.#came.clear()
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

  #take(): [key: string, added: number] | undefined {
    const now = performance.now()
    const [urgent, other] = [this.#urgent.entries().next().value, this.#ready.entries().next().value]
    const patience = other === undefined ? 0 : other[1] + PATIENCE - now
    const burst = this.#burstEnd() - now
    const overdue = other !== undefined && patience < 0 && !(this.#wasOverdue && urgent !== undefined)
    const next = overdue ? other : (urgent ?? (burst > 0 ? undefined : other))
    if (next === undefined && other !== undefined) this.#wakeIn(Math.min(burst, patience))
    if (next !== undefined) (next === urgent ? this.#urgent : this.#ready).delete(next[0])
    this.#wasOverdue = overdue
    return next
  }

  /** Zero: there is no burst. */
  #burstEnd(): number {
    const [first] = this.#came.values()
    return first === undefined || this.#came.size < BURST_KEYS ? 0 : first + BURST_MILLISECONDS
  }

  #note(urgent: string): void {
    this.#came.delete(urgent)
    this.#came.set(urgent, performance.now())
    const [oldest] = this.#came.keys()
    if (oldest !== undefined && this.#came.size > BURST_KEYS) this.#came.delete(oldest)
  }

  #wakeIn(milliseconds: number): void {
    this.#pause ??= setTimeout(() => {
      this.#pause = undefined
      for (const wake of this.#wake.splice(0)) wake()
    }, milliseconds + 1)
  }
}

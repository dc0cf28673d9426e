// A work queue of keys (`namespace/name`). Namespaces take turns, each with its share of the work
// under way, so that none waits for the keys of another. A key is never worked on twice at the same
// time, and adding it again while it waits has no effect. A key that fails comes back after a
// growing delay.

import { Shares } from './api/shares.ts'
import { Lane } from './lane.ts'
import { namespaceOf } from './objects/wire.ts'

export type QueueHooks = {
  /** Called when a key is added. */
  isUrgent?: (key: string) => boolean
  onAdd?: () => void
  onRetry?: () => void
  onStart?: (waitedMilliseconds: number) => void
  onDone?: (workedMilliseconds: number) => void
}
type Work = (key: string) => Promise<void>

const FIRST_BACKOFF = 10
const LONGEST_BACKOFF = 300_000
/** Work that takes longer waits for an answer, and meanwhile other work is begun. */
const SLOW_MILLISECONDS = 500
/** setTimeout counts in 32 bits. */
const LONGEST_TIMER = 2_147_483_647

export class Queue {
  /** The keys that wait, by namespace. The namespace whose last turn is longest ago comes first. */
  readonly #lanes = new Map<string, Lane>()
  /** Keys under way, with the time at which the work began. */
  readonly #working = new Map<string, number>()
  /** Keys that were added again while under way. */
  readonly #again = new Set<string>()
  readonly #delayed = new Map<string, { at: number; timer: NodeJS.Timeout }>()
  readonly #failures = new Map<string, number>()
  readonly #hooks: QueueHooks
  #runs: { shares: Shares; work: Work; ended: () => void } | undefined
  /** Looks again when ordinary keys need not wait any more. */
  #pause: { at: number; timer: NodeJS.Timeout } | undefined
  #closed = false

  constructor(hooks: QueueHooks = {}) {
    this.#hooks = hooks
  }

  get depth(): number {
    return [...this.#lanes.values()].reduce((sum, lane) => sum + lane.depth, 0)
  }

  /** Whether urgent keys of a namespace wait, or more of them are expected soon. */
  isBusy(namespace: string): boolean {
    return this.#lanes.get(namespace)?.isBusy(performance.now()) ?? false
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
    const namespace = namespaceOf(key)
    const lane = this.#lanes.get(namespace) ?? new Lane()
    this.#lanes.set(namespace, lane)
    if (!lane.add(key, this.#hooks.isUrgent?.(key) === true, performance.now())) return
    this.#hooks.onAdd?.()
    this.#pump()
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

  /**
   * Works until the queue is closed and the work under way is done. `concurrency` is the number of
   * keys under way, without those whose work is slow. `work` must not throw.
   */
  async run(concurrency: number, work: Work): Promise<void> {
    if (this.#closed) return
    await new Promise<void>(ended => {
      const shares = new Shares({ atOnce: concurrency, slowMilliseconds: SLOW_MILLISECONDS })
      this.#runs = { shares, work, ended }
      this.#pump()
    })
  }

  close(): void {
    this.#closed = true
    for (const { timer } of this.#delayed.values()) clearTimeout(timer)
    this.#delayed.clear()
    this.#lanes.clear()
    clearTimeout(this.#pause?.timer)
    this.#endIfDone()
  }

  /** Begins as much work as the shares of the namespaces allow. */
  #pump = (): void => {
    if (this.#runs === undefined || this.#closed) return
    const { shares, work } = this.#runs
    for (;;) {
      const now = performance.now()
      const ready = [...this.#lanes].filter(([namespace, lane]) => this.#isReady(namespace, lane, now))
      const tenants = shares.tenantsWith(ready.map(([namespace]) => namespace))
      const [namespace, lane] = ready.find(([each]) => shares.admits(each, tenants)) ?? []
      const next = lane?.take(now)
      if (namespace === undefined || lane === undefined || next === undefined) return
      this.#lanes.delete(namespace)
      this.#lanes.set(namespace, lane)
      void this.#begin(next[0], now - next[1], { work, free: shares.take(namespace, this.#pump) })
    }
  }

  /** Whether a lane has a key for now. A lane that holds nothing any more is forgotten. */
  #isReady(namespace: string, lane: Lane, now: number): boolean {
    const wait = lane.wait(now)
    if (lane.isIdle(now)) this.#lanes.delete(namespace)
    else if (wait > 0 && Number.isFinite(wait)) this.#lookAgain(now + wait)
    return wait === 0
  }

  async #begin(key: string, waited: number, { work, free }: { work: Work; free: () => void }): Promise<void> {
    const start = performance.now()
    this.#working.set(key, start)
    this.#hooks.onStart?.(waited)
    try {
      // The server's answers are read between two pieces of work, however much work there is.
      await new Promise<void>(resolve => setImmediate(resolve))
      await work(key)
    } finally {
      this.#working.delete(key)
      free()
      this.#hooks.onDone?.(performance.now() - start)
      if (this.#again.delete(key)) this.add(key)
      this.#pump()
      this.#endIfDone()
    }
  }

  #endIfDone(): void {
    if (this.#closed && this.#working.size === 0) this.#runs?.ended()
  }

  #lookAgain(at: number): void {
    if (this.#pause !== undefined && this.#pause.at <= at) return
    clearTimeout(this.#pause?.timer)
    const timer = setTimeout(
      () => {
        this.#pause = undefined
        this.#pump()
      },
      at - performance.now() + 1,
    )
    this.#pause = { at, timer }
  }
}

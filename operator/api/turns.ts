// Lets requests of many tenants take turns: one tenant after another, each within its share of the
// requests under way, and all together no faster than a pace allows.

import type { Pace } from './pace.ts'
import { Shares } from './shares.ts'

/** Requests under way. More would cost a burst of TLS handshakes before any is answered faster. */
const AT_ONCE = 32
/** An admission webhook may hold a request for long, and then others have its place. */
const SLOW_MILLISECONDS = 1000

type Granted = (release: () => void) => void

export class Turns {
  readonly #shares = new Shares({ atOnce: AT_ONCE, slowMilliseconds: SLOW_MILLISECONDS })
  readonly #pace: Pace | undefined
  /** Requests that wait, by tenant. The tenant whose last turn is longest ago comes first. */
  readonly #waiting = new Map<string, Granted[]>()
  #pause: NodeJS.Timeout | undefined

  /** Without a pace only the number of requests under way is limited. */
  constructor(pace?: Pace) {
    this.#pace = pace
  }

  /** Resolves when it is this tenant's turn, with a function to call when the request is over. */
  async next(tenant: string): Promise<() => void> {
    return new Promise(granted => {
      const line = this.#waiting.get(tenant)
      if (line === undefined) this.#waiting.set(tenant, [granted])
      else line.push(granted)
      this.#pump()
    })
  }

  #pump = (): void => {
    for (;;) {
      const tenants = this.#shares.tenantsWith(this.#waiting.keys())
      const tenant = [...this.#waiting.keys()].find(each => this.#shares.admits(each, tenants))
      if (tenant === undefined || this.#hasToPause()) return
      this.#grant(tenant)
    }
  }

  #resume = (): void => {
    this.#pause = undefined
    this.#pump()
  }

  #hasToPause(): boolean {
    const now = performance.now()
    const wait = this.#pace?.wait(now) ?? 0
    if (wait > 0) {
      if (this.#pause === undefined) this.#pause = setTimeout(this.#resume, Math.ceil(wait))
      return true
    }
    this.#pace?.take(now)
    return false
  }

  #grant(tenant: string): void {
    const line = this.#waiting.get(tenant) ?? []
    const granted = line.shift()
    this.#waiting.delete(tenant)
    if (line.length > 0) this.#waiting.set(tenant, line)
    const free = this.#shares.take(tenant, this.#pump)
    granted?.(() => {
      free()
      this.#pump()
    })
  }
}

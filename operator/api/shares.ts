// Divides places among tenants, which are namespaces. Each tenant may fill its share of the places
// with work, and a tenant that arrives does not wait until the work of others ends.

export type SharesOptions = {
  /** Work that is under way and not slow. */
  atOnce: number
  /** Work that takes longer is slow. Others get its place, and it still counts for its tenant. */
  slowMilliseconds: number
}

/** All work that is under way, slow or not, is at most so many times `atOnce`. */
const MOST = 16
/** A tenant without work under way gets a place up to so many times `atOnce`. */
const CROWDED = 2

export class Shares {
  readonly #options: SharesOptions
  /** Places that each tenant holds, slow ones included. */
  readonly #held = new Map<string, number>()
  #all = 0
  #quick = 0

  constructor(options: SharesOptions) {
    this.#options = options
  }

  /** Number of places that are held. */
  get taken(): number {
    return this.#all
  }

  heldBy(tenant: string): number {
    return this.#held.get(tenant) ?? 0
  }

  /** Number of tenants that hold a place or are among the `waiting` ones. */
  tenantsWith(waiting: Iterable<string>): number {
    let tenants = this.#held.size
    for (const tenant of waiting) if (!this.#held.has(tenant)) tenants++
    return tenants
  }

  /** Places for one of so many tenants. */
  shareOf(tenants: number): number {
    return Math.max(1, Math.floor(this.#options.atOnce / Math.max(1, tenants)))
  }

  /** Whether a tenant may take another place while so many tenants hold or want one. */
  admits(tenant: string, tenants: number): boolean {
    const { atOnce } = this.#options
    const mine = this.heldBy(tenant)
    if (mine >= this.shareOf(tenants) || this.#all >= MOST * atOnce) return false
    return this.#quick < atOnce || (mine === 0 && this.#quick < CROWDED * atOnce)
  }

  /** Takes a place, and returns what gives it back. `onSlow` is called when slow work leaves it. */
  take(tenant: string, onSlow: () => void): () => void {
    this.#all++
    this.#quick++
    this.#held.set(tenant, this.heldBy(tenant) + 1)
    let isSlow = false
    const timer = setTimeout(() => {
      isSlow = true
      this.#quick--
      onSlow()
    }, this.#options.slowMilliseconds)
    return () => {
      clearTimeout(timer)
      this.#all--
      if (!isSlow) this.#quick--
      const left = this.heldBy(tenant) - 1
      if (left === 0) this.#held.delete(tenant)
      else this.#held.set(tenant, left)
    }
  }
}

// Leader election on a Lease, as in client-go. A leader that cannot renew the Lease stops before
// another replica may start. A leader that shuts down releases the Lease, so that the next one need
// not wait. The clocks of two machines are never compared. Before every write the remaining time is
// checked, so a leader that was paused writes nothing until it has renewed the Lease.

import { setTimeout as sleep } from 'node:timers/promises'
import type { KubeObject } from '../objects/wire.ts'
import { isCode, messageOf } from './errors.ts'
import { Kube, type KubeOptions } from './kube.ts'

export type LeaseSpec = {
  holderIdentity?: string
  leaseDurationSeconds?: number
  acquireTime?: string
  renewTime?: string
  leaseTransitions?: number
}
export type Lease = KubeObject & { spec?: LeaseSpec }

export type ElectorOptions = {
  kube: Pick<Kube, 'call'>
  namespace: string
  name: string
  identity: string
  /** A leader that is silent for this long may be replaced. It stops by itself after two thirds. */
  leaseSeconds: number
  onProblem?: (problem: string) => void
}

type Connection = {
  kubeconfig: string | undefined
  namespace: string | undefined
  onRequest?: KubeOptions['onRequest']
}

const RETRIES_PER_LEASE = 7.5

/** Time in the form of metav1.MicroTime, with six digits after the point. */
export const microTime = (milliseconds: number): string => new Date(milliseconds).toISOString().replace('Z', '000Z')

export class Elector {
  readonly #options: ElectorOptions
  /** The version of the Lease that was last seen, and when it changed, by our own clock. */
  #seen: { version: string | undefined; at: number } = { version: undefined, at: 0 }
  #held: Lease | undefined
  /**
   * When the last successful renewal was sent, by two clocks. The steady clock stands still while
   * the machine sleeps, and the wall clock can be set by hand.
   */
  #renewed = { steady: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY }

  constructor(options: ElectorOptions) {
    this.#options = options
  }

  /** The elector has connections of its own, so that no other traffic delays a renewal. */
  static connect({
    kubeconfig,
    namespace,
    onRequest,
    ...options
  }: Omit<ElectorOptions, 'kube' | 'namespace'> & Connection): Elector {
    const kube = new Kube(kubeconfig, onRequest === undefined ? {} : { onRequest })
    return new Elector({ ...options, kube, namespace: namespace ?? kube.namespace ?? 'default' })
  }

  /**
   * Milliseconds for which no other replica can get the Lease. Zero or less if the Lease is not
   * held or was not renewed in time.
   */
  get remaining(): number {
    return Math.min(this.#left(), this.#deadline() - (Date.now() - this.#renewed.wall))
  }

  /** Resolves with true once the Lease is ours, with false if `signal` fires before. */
  async acquire(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      try {
        if (await this.#tryAcquire()) return true
      } catch (error) {
        this.#options.onProblem?.(`lease ${this.#options.name}: ${messageOf(error)}`)
      }
      await sleep(this.#period() * (0.9 + Math.random() / 5), undefined, { signal }).catch(() => undefined)
    }
    return false
  }

  /**
   * Renews the Lease until `signal` fires (true) or the Lease is lost (false). A leader that has
   * lost the Lease must stop at once.
   */
  async keep(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      await sleep(Math.min(this.#period(), this.#left()), undefined, { signal }).catch(() => undefined)
      if (signal.aborted) break
      try {
        await this.#renew()
      } catch (error) {
        this.#options.onProblem?.(`lease ${this.#options.name}: ${messageOf(error)}`)
        if (isCode(error, 409) && !(await this.#stillOurs())) return false
      }
      if (this.#left() <= 0) return false
    }
    return true
  }

  /** Releases the Lease, so that a standby gets it the next time it tries. */
  async release(): Promise<void> {
    const lease = this.#held
    if (lease === undefined) return
    this.#held = undefined
    this.#renewed = { steady: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY }
    const now = microTime(Date.now())
    await this.#write('PUT', {
      ...lease,
      spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1, acquireTime: now, renewTime: now },
    }).catch((error: unknown) =>
      this.#options.onProblem?.(`lease ${this.#options.name} not released: ${messageOf(error)}`),
    )
  }

  async #tryAcquire(): Promise<boolean> {
    const { identity, leaseSeconds, namespace, name } = this.#options
    const now = microTime(Date.now())
    const ours = { holderIdentity: identity, leaseDurationSeconds: leaseSeconds, acquireTime: now, renewTime: now }
    const lease = await this.#read()
    if (lease === undefined) {
      return this.#hold('POST', { metadata: { name, namespace }, spec: { ...ours, leaseTransitions: 0 } })
    }
    if (lease.metadata.resourceVersion !== this.#seen.version)
      this.#seen = { version: lease.metadata.resourceVersion, at: performance.now() }
    const holder = lease.spec?.holderIdentity ?? ''
    const silent = performance.now() - this.#seen.at
    if (holder !== '' && holder !== identity && silent < (lease.spec?.leaseDurationSeconds ?? leaseSeconds) * 1000)
      return false
    const leaseTransitions = (lease.spec?.leaseTransitions ?? 0) + 1
    return this.#hold('PUT', { ...lease, spec: { ...lease.spec, ...ours, leaseTransitions } })
  }

  async #renew(): Promise<void> {
    if (this.#held === undefined) throw new Error('not held')
    const spec = { ...this.#held.spec, renewTime: microTime(Date.now()) }
    await this.#hold('PUT', { ...this.#held, spec })
  }

  async #hold(method: 'POST' | 'PUT', lease: Lease): Promise<true> {
    const sent = { steady: performance.now(), wall: Date.now() }
    this.#held = await this.#write(method, lease)
    this.#renewed = sent
    return true
  }

  /**
   * After a conflict, whether the Lease is still ours: somebody may have edited it, or our last
   * renewal arrived although its answer did not.
   */
  async #stillOurs(): Promise<boolean> {
    const lease = await this.#read().catch(() => this.#held)
    if (lease?.spec?.holderIdentity !== this.#options.identity) return false
    this.#held = lease
    return true
  }

  async #read(): Promise<Lease | undefined> {
    try {
      return await this.#options.kube.call<Lease>({
        method: 'GET',
        path: this.#path(true),
        timeoutMilliseconds: this.#timeout(),
      })
    } catch (error) {
      if (isCode(error, 404)) return undefined
      throw error
    }
  }

  async #write(method: 'POST' | 'PUT', lease: Lease): Promise<Lease> {
    return this.#options.kube.call<Lease>({
      method,
      path: this.#path(method === 'PUT'),
      body: { ...lease, apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
      timeoutMilliseconds: this.#timeout(),
    })
  }

  #path(named: boolean): string {
    const { namespace, name } = this.#options
    return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases${named ? `/${name}` : ''}`
  }

  /** Milliseconds for a request. A leader's request must not outlast the time it may lead. */
  #timeout(): number {
    const longest = this.#period() * 2
    return this.#left() > 0 ? Math.min(longest, this.#left()) : longest
  }

  /** Milliseconds for which a leader may go on without another renewal, by the steady clock. */
  #left(): number {
    return this.#deadline() - (performance.now() - this.#renewed.steady)
  }

  #deadline(): number {
    return (this.#options.leaseSeconds * 1000 * 2) / 3
  }

  #period(): number {
    return (this.#options.leaseSeconds * 1000) / RETRIES_PER_LEASE
  }
}

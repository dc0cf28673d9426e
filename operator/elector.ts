// Leader election on a Lease, as client-go does it: a leader that cannot renew stops before another may start, and one
// that stops gracefully lets go, so that the next need not wait. Clocks of different machines are never compared.

import { setTimeout as sleep } from 'node:timers/promises'
import { isCode, messageOf } from './errors.ts'
import { Kube } from './kube.ts'
import type { KubeObject } from './objects.ts'

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
  /** A leader silent for this long may be replaced; it stops by itself after two thirds of it. */
  leaseSeconds: number
  onProblem?: (problem: string) => void
}

type Connection = { kubeconfig: string | undefined; namespace: string | undefined }

const RETRIES_PER_LEASE = 7.5

/** V1MicroTime: six digits after the point. */
export const microTime = (milliseconds: number): string => new Date(milliseconds).toISOString().replace('Z', '000Z')

export class Elector {
  readonly #options: ElectorOptions
  /** The Lease as last seen, and when on our own clock it last changed. */
  #seen: { version: string | undefined; at: number } = { version: undefined, at: 0 }
  #held: Lease | undefined

  constructor(options: ElectorOptions) {
    this.#options = options
  }

  /** Over connections of its own, so that no other traffic delays a renewal. */
  static connect({
    kubeconfig,
    namespace,
    ...options
  }: Omit<ElectorOptions, 'kube' | 'namespace'> & Connection): Elector {
    const kube = new Kube(kubeconfig)
    return new Elector({ ...options, kube, namespace: namespace ?? kube.namespace ?? 'default' })
  }

  /** Resolves once the Lease is ours; false when `signal` came first. */
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

  /** Renews until `signal` (true) or until the Lease is lost (false): then whoever leads must stop at once. */
  async keep(signal: AbortSignal): Promise<boolean> {
    const deadline = (this.#options.leaseSeconds * 1000 * 2) / 3
    let renewed = performance.now()
    while (!signal.aborted) {
      await sleep(this.#period(), undefined, { signal }).catch(() => undefined)
      if (signal.aborted) break
      try {
        await this.#renew()
        renewed = performance.now()
      } catch (error) {
        this.#options.onProblem?.(`lease ${this.#options.name}: ${messageOf(error)}`)
        if (isCode(error, 409) && !(await this.#stillOurs())) return false
      }
      if (performance.now() - renewed > deadline) return false
    }
    return true
  }

  /** Lets go of the Lease, so that a standby takes it at its next look. */
  async release(): Promise<void> {
    const lease = this.#held
    if (lease === undefined) return
    this.#held = undefined
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
      this.#held = await this.#write('POST', { metadata: { name, namespace }, spec: { ...ours, leaseTransitions: 0 } })
      return true
    }
    if (lease.metadata.resourceVersion !== this.#seen.version)
      this.#seen = { version: lease.metadata.resourceVersion, at: performance.now() }
    const holder = lease.spec?.holderIdentity ?? ''
    const silent = performance.now() - this.#seen.at
    if (holder !== '' && holder !== identity && silent < (lease.spec?.leaseDurationSeconds ?? leaseSeconds) * 1000)
      return false
    const leaseTransitions = (lease.spec?.leaseTransitions ?? 0) + 1
    this.#held = await this.#write('PUT', { ...lease, spec: { ...lease.spec, ...ours, leaseTransitions } })
    return true
  }

  async #renew(): Promise<void> {
    if (this.#held === undefined) throw new Error('not held')
    const spec = { ...this.#held.spec, renewTime: microTime(Date.now()) }
    this.#held = await this.#write('PUT', { ...this.#held, spec })
  }

  /** After a conflict: somebody edited the Lease, or our last renewal did arrive though its answer did not. */
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
        timeoutMilliseconds: this.#period() * 2,
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
      timeoutMilliseconds: this.#period() * 2,
    })
  }

  #path(named: boolean): string {
    const { namespace, name } = this.#options
    return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases${named ? `/${name}` : ''}`
  }

  #period(): number {
    return (this.#options.leaseSeconds * 1000) / RETRIES_PER_LEASE
  }
}

import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, vi } from 'vitest'
import { Elector, type Lease } from '../../../operator/api/elector.ts'
import { ApiError } from '../../../operator/api/errors.ts'
import type { Request } from '../../../operator/api/kube.ts'

/** An API server with one Lease, which can stop answering. */
class LeaseServer {
  lease: Lease | undefined
  down = false
  calls = 0
  #version = 0

  async call<T>({ method, body }: Request): Promise<T> {
    this.calls++
    await sleep(1)
    if (this.down) throw new Error('connection refused')
    const fail = (code: number) => new ApiError({ code, reason: '', message: '', request: method })
    if (method === 'GET' && this.lease === undefined) throw fail(404)
    if (method !== 'GET') this.#write(method, body as Lease, fail)
    return structuredClone(this.lease) as T
  }

  #write(method: string, lease: Lease, fail: (code: number) => Error): void {
    const stale = method === 'PUT' && lease.metadata.resourceVersion !== this.lease?.metadata.resourceVersion
    if (stale || (method === 'POST' && this.lease !== undefined)) throw fail(409)
    this.lease = { ...lease, metadata: { ...lease.metadata, resourceVersion: String(++this.#version) } }
  }
}

const leaseSeconds = 1.5
const electorOf = (kube: Pick<LeaseServer, 'call'>, identity: string) =>
  new Elector({ kube, namespace: 'ns', name: 'lease', identity, leaseSeconds })
const never = () => new AbortController().signal

describe('Elector', () => {
  it('gives the Lease to one of many', async () => {
    const server = new LeaseServer()
    const stop = new AbortController()
    const electors = ['a', 'b', 'c'].map(identity => electorOf(server, identity))
    const won: number[] = []
    const all = electors.map(async (elector, i) => {
      if (!(await elector.acquire(stop.signal))) return
      won.push(i)
      await elector.keep(stop.signal)
    })
    await sleep(leaseSeconds * 2000)
    stop.abort()
    await Promise.all(all)
    expect(won).toHaveLength(1)
  })

  it('is taken over only after a silent leader has had its time', async () => {
    const server = new LeaseServer()
    await electorOf(server, 'a').acquire(never())
    const start = performance.now()
    await electorOf(server, 'b').acquire(never())
    expect(performance.now() - start).toBeGreaterThanOrEqual(leaseSeconds * 1000)
    expect(server.lease?.spec).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 })
  })

  it('is taken over at the next look after a release', async () => {
    const server = new LeaseServer()
    const first = electorOf(server, 'a')
    await first.acquire(never())
    await first.release()
    expect(server.lease?.spec).toMatchObject({ holderIdentity: '', leaseDurationSeconds: 1 })
    const before = server.calls
    await electorOf(server, 'b').acquire(never())
    expect(server.calls - before, 'one look, one write').toBe(2)
  })

  it('is given up by a leader that cannot renew, before another may take it', async () => {
    const server = new LeaseServer()
    let isCut = false
    const call = async <T>(request: Request): Promise<T> => {
      if (isCut) throw new Error('connection refused')
      return server.call(request)
    }
    const elector = electorOf({ call }, 'a')
    await elector.acquire(never())
    isCut = true
    const order: string[] = []
    const kept = elector.keep(never()).then(held => order.push(held ? 'a was told to stop' : 'a gives up'))
    await Promise.all([
      kept,
      electorOf(server, 'b')
        .acquire(never())
        .then(() => order.push('b leads')),
    ])
    expect(order).toEqual(['a gives up', 'b leads'])
  })

  it('says how long its leader may write: no longer than until another may take over', async () => {
    const server = new LeaseServer()
    const elector = electorOf(server, 'a')
    expect(elector.remaining).toBeLessThan(0)
    await elector.acquire(never())
    expect(elector.remaining).toBeGreaterThan(0)
    expect(elector.remaining).toBeLessThan((leaseSeconds * 1000 * 2) / 3)
    server.down = true
    expect(await elector.keep(never())).toBe(false)
    expect(elector.remaining).toBeLessThanOrEqual(0)
  })

  it('allows no write where the machine slept or the clock was set forward, until it has renewed', async () => {
    const server = new LeaseServer()
    const elector = electorOf(server, 'a')
    await elector.acquire(never())
    const now = vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 3_600_000)
    try {
      expect(elector.remaining).toBeLessThan(0)
      const stop = new AbortController()
      const kept = elector.keep(stop.signal)
      await sleep(leaseSeconds * 300)
      expect(elector.remaining).toBeGreaterThan(0)
      stop.abort()
      expect(await kept).toBe(true)
    } finally {
      now.mockRestore()
    }
  })

  it('lets nobody write after a release', async () => {
    const elector = electorOf(new LeaseServer(), 'a')
    await elector.acquire(never())
    await elector.release()
    expect(elector.remaining).toBeLessThan(0)
  })

  it('is lost at once to another holder, but not to somebody who only edits it', async () => {
    const server = new LeaseServer()
    const elector = electorOf(server, 'a')
    await elector.acquire(never())
    const stop = new AbortController()
    const kept = elector.keep(stop.signal)
    const edit = (spec: object) => {
      const lease = server.lease
      if (lease !== undefined)
        server.lease = {
          ...lease,
          metadata: { ...lease.metadata, resourceVersion: `${Math.random()}` },
          spec: { ...lease.spec, ...spec },
        }
    }
    edit({})
    await sleep(leaseSeconds * 1000)
    expect(server.lease?.spec?.holderIdentity).toBe('a')
    edit({ holderIdentity: 'b' })
    expect(await kept).toBe(false)
    stop.abort()
  })

  it('writes times with six digits, as V1MicroTime has them', async () => {
    const server = new LeaseServer()
    await electorOf(server, 'a').acquire(never())
    expect(server.lease?.spec?.renewTime).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
  })
})

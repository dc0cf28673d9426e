import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { ApiError } from '../../../operator/api/errors.ts'
import type { Request } from '../../../operator/api/kube.ts'
import { Events } from '../../../operator/events.ts'
import type { Note } from '../../../operator/plan/decision.ts'

const job = (name: string) => ({ metadata: { name, namespace: 'ns', uid: `uid-${name}` } })
const ready: Note = { type: 'Normal', reason: 'AllWorkersReady', action: 'Running', note: 'all workers are ready' }
const unready: Note = { type: 'Normal', reason: 'WorkersNotReady', action: 'Running', note: '1 of 2 is not ready' }

/** Keeps events as a server does, and can forget them. */
class EventServer {
  readonly events = new Map<string, { series?: { count: number }; eventTime?: string }>()
  writes = 0
  /** The next so many. */
  refuses = 0

  async call<T>({ method, path, body }: Request): Promise<T> {
    this.writes++
    if (this.refuses-- > 0) throw new ApiError({ code: 500, reason: '', message: '', request: path })
    const given = body as { series?: { count: number } }
    if (method === 'POST') {
      const name = `event-${this.writes}`
      this.events.set(name, given)
      return { metadata: { name } } as T
    }
    const name = path.split('/').at(-1) ?? ''
    const known = this.events.get(name)
    if (known === undefined) throw new ApiError({ code: 404, reason: 'NotFound', message: '', request: path })
    this.events.set(name, { ...known, ...given })
    return {} as T
  }
}

describe('Events', () => {
  it('that say the same of the same job again are a series of one event', async () => {
    const server = new EventServer()
    const events = new Events(server, { identity: 'a' })
    for (let i = 0; i < 5; i++) {
      events.send(job('x'), ready)
      events.send(job('x'), unready)
    }
    await events.settled()
    expect([...server.events.values()].map(({ series }) => series?.count)).toEqual([5, 5])
  })

  it('of another job, or with other words, are other events', async () => {
    const server = new EventServer()
    const events = new Events(server, { identity: 'a' })
    events.send(job('x'), ready)
    events.send(job('y'), ready)
    events.send(job('x'), { ...ready, note: 'other words' })
    await events.settled()
    expect([...server.events.values()].map(({ series }) => series)).toEqual([undefined, undefined, undefined])
  })

  it('are told anew when the server has forgotten them', async () => {
    const server = new EventServer()
    const events = new Events(server, { identity: 'a' })
    events.send(job('x'), ready)
    await events.settled()
    server.events.clear()
    events.send(job('x'), ready)
    await events.settled()
    expect(server.events.size).toBe(1)
  })

  // Seen to fail: without asking `shouldYield` both are told at once.
  it('wait while others need the API server more, then are told with the time at which it happened', async () => {
    const server = new EventServer()
    let busy = true
    const events = new Events(server, { identity: 'a', shouldYield: () => busy })
    events.send(job('x'), ready)
    events.send(job('y'), ready)
    const before = new Date().toISOString()
    await sleep(20)
    expect(server.writes).toBe(0)
    busy = false
    await events.settled()
    const times = [...server.events.values()].map(({ eventTime = '' }) => eventTime)
    expect(times.map(time => time.slice(0, 23) <= before)).toEqual([true, true])
  })

  it('that are lost are told of, and do not hold up the others', async () => {
    const server = new EventServer()
    const lost: string[] = []
    const events = new Events(server, { identity: 'a', onLost: ({ metadata }) => void lost.push(metadata.name) })
    server.refuses = 1
    events.send(job('x'), ready)
    events.send(job('y'), ready)
    await events.settled()
    expect([lost, server.events.size]).toEqual([['x'], 1])
  })
})

import { describe, expect, it } from 'vitest'
import { ApiError } from '../../operator/errors.ts'
import { Events } from '../../operator/events.ts'
import type { Request } from '../../operator/kube.ts'
import type { Note } from '../../operator/plan.ts'

const job = (name: string) => ({ metadata: { name, namespace: 'ns', uid: `uid-${name}` } })
const ready: Note = { type: 'Normal', reason: 'AllWorkersReady', action: 'Running', note: 'all workers are ready' }
const unready: Note = { type: 'Normal', reason: 'WorkersNotReady', action: 'Running', note: '1 of 2 is not ready' }

/** Keeps events as a server does, and can forget them. */
class EventServer {
  readonly events = new Map<string, { series?: { count: number } }>()
  writes = 0

  async call<T>({ method, path, body }: Request): Promise<T> {
    this.writes++
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
    const events = new Events(server, 'a')
    for (let i = 0; i < 5; i++) {
      await events.tell(job('x'), ready)
      await events.tell(job('x'), unready)
    }
    expect([...server.events.values()].map(({ series }) => series?.count)).toEqual([5, 5])
  })

  it('of another job, or with other words, are other events', async () => {
    const server = new EventServer()
    const events = new Events(server, 'a')
    await events.tell(job('x'), ready)
    await events.tell(job('y'), ready)
    await events.tell(job('x'), { ...ready, note: 'other words' })
    expect([...server.events.values()].map(({ series }) => series)).toEqual([undefined, undefined, undefined])
  })

  it('are told anew when the server has forgotten them', async () => {
    const server = new EventServer()
    const events = new Events(server, 'a')
    await events.tell(job('x'), ready)
    server.events.clear()
    await events.tell(job('x'), ready)
    expect(server.events.size).toBe(1)
  })
})

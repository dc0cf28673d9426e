import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { ApiError } from '../../../operator/api/errors.ts'
import type { Request } from '../../../operator/api/kube.ts'
import { Reflector } from '../../../operator/api/reflector.ts'
import type { KubeObject } from '../../../operator/objects/wire.ts'

type Event = { type: string; object: object }
const object = (name: string, version: number, uid = `uid-${name}`): KubeObject => ({
  metadata: { name, namespace: 'ns', uid, resourceVersion: String(version) },
})
const expired = new ApiError({ code: 410, reason: 'Expired', message: 'too old', request: 'GET' })

/**
 * A server that answers each LIST and each WATCH with what a test gives it. A watch with nothing
 * left to send stays open.
 */
class Server {
  readonly requests: Request[] = []
  readonly lists: (object | Error)[] = []
  readonly watches: (Event | Error | 'end')[][] = []

  async call<T>(request: Request): Promise<T> {
    this.requests.push(request)
    const next = this.lists.shift()
    if (next === undefined) throw new Error('no list left')
    if (next instanceof Error) throw next
    const answer: unknown = next
    return answer as T
  }

  async *lines<T>(request: Request, signal: AbortSignal): AsyncGenerator<T> {
    this.requests.push(request)
    for (const event of this.watches.shift() ?? []) {
      await sleep(1)
      if (event === 'end') return
      if (event instanceof Error) throw event
      const line: unknown = event
      yield line as T
    }
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }
}

const page = (version: number, items: KubeObject[], token?: string) => ({
  metadata: { resourceVersion: String(version), continue: token },
  items,
})

const name = (each: KubeObject | undefined) =>
  each === undefined ? '-' : `${each.metadata.uid}@${each.metadata.resourceVersion}`

async function reflect(
  server: Server,
  until: (log: string[], reflector: Reflector<KubeObject>) => boolean,
  idleMilliseconds = 60_000,
) {
  const log: string[] = []
  const problems: string[] = []
  const reflector = new Reflector<KubeObject>({
    kube: server,
    path: '/things',
    idleMilliseconds,
    onChange: (now, before) => log.push(`${name(before)} -> ${name(now)}`),
    onProblem: problem => problems.push(problem),
  })
  const stop = new AbortController()
  const running = reflector.run(stop.signal)
  for (let i = 0; i < 500 && !until(log, reflector); i++) await sleep(10)
  stop.abort()
  await running
  return { log, problems, reflector }
}

describe('Reflector', () => {
  it('reads the list page by page, then watches from its version with bookmarks', async () => {
    const server = new Server()
    server.lists.push(page(7, [object('a', 1)], 'more'), page(7, [object('b', 2)]))
    const { reflector } = await reflect(server, () => server.requests.length === 3)
    expect(server.requests.map(({ query }) => query?.['continue'])).toEqual([undefined, 'more', undefined])
    expect(server.requests[2]?.query).toMatchObject({ watch: true, allowWatchBookmarks: true, resourceVersion: '7' })
    expect([...reflector.values()].map(({ metadata }) => metadata.name)).toEqual(['a', 'b'])
  })

  it('goes on from the last bookmark after an error', async () => {
    const server = new Server()
    server.lists.push(page(7, []))
    server.watches.push([{ type: 'BOOKMARK', object: object('', 20) }, new Error('reset')])
    await reflect(server, () => server.requests.length === 3)
    expect(server.requests[2]?.query?.['resourceVersion']).toBe('20')
  })

  it.each([
    ['as an answer', [expired]],
    ['within the stream', [{ type: 'ERROR', object: { code: 410, message: 'too old' } }]],
  ])('lists again after 410 %s, and tells what it missed', async (_, watch) => {
    const server = new Server()
    server.lists.push(
      page(7, [object('a', 1), object('b', 2), object('c', 3)]),
      page(30, [object('b', 25), object('c', 3)]),
    )
    server.watches.push(watch)
    const { log } = await reflect(server, () => server.requests.length === 4)
    expect(log.slice(3)).toEqual(['uid-a@1 -> -', 'uid-b@2 -> uid-b@25'])
  })

  it('opens a watch again that is silent for too long', async () => {
    const server = new Server()
    server.lists.push(page(7, []))
    const { problems } = await reflect(server, () => server.requests.length >= 4, 50)
    expect(problems[0]).toBe('/things: watch silent for 50 ms')
  })

  it('does not ask at full speed a server that ends every watch at once', async () => {
    const server = new Server()
    server.lists.push(page(7, []))
    for (let i = 0; i < 1000; i++) server.watches.push(['end'])
    const start = performance.now()
    await reflect(server, () => performance.now() - start > 1000)
    expect(server.requests.length).toBeLessThan(12)
  })

  // Seen failing with such an end counted as a failure: twenty of them take minutes.
  it('goes on at once where the server ends a watch that was too slow in a burst', async () => {
    const server = new Server()
    server.lists.push(page(7, []))
    for (let i = 8; i < 28; i++) server.watches.push([{ type: 'ADDED', object: object(`o${i}`, i) }, 'end'])
    const { log, problems } = await reflect(server, each => each.length === 20)
    expect(log).toHaveLength(20)
    expect(problems).toEqual([])
  })

  it('does not take bookmarks for progress', async () => {
    const server = new Server()
    server.lists.push(page(7, []))
    for (let i = 0; i < 1000; i++) server.watches.push([{ type: 'BOOKMARK', object: object('', 8) }, 'end'])
    const start = performance.now()
    await reflect(server, () => performance.now() - start > 1000)
    expect(server.requests.length).toBeLessThan(12)
  })

  it('tells of an object made again under its name that the old one went and a new one came', async () => {
    const server = new Server()
    server.lists.push(page(7, [object('a', 1)]))
    server.watches.push([{ type: 'MODIFIED', object: object('a', 9, 'uid-2') }])
    const { log } = await reflect(server, each => each.length === 3)
    expect(log).toEqual(['- -> uid-a@1', 'uid-a@1 -> -', '- -> uid-2@9'])
  })

  it('keeps what was put until the watch brings something newer, and tells each version once', async () => {
    const server = new Server()
    server.lists.push(page(7, [object('a', 1)]))
    let put = false
    server.watches.push(
      [new Error('wait'), 'end'],
      [
        { type: 'MODIFIED', object: object('a', 8) },
        { type: 'MODIFIED', object: object('a', 10) },
        { type: 'MODIFIED', object: object('a', 11) },
      ],
    )
    const { log } = await reflect(server, (each, reflector) => {
      if (reflector.synced && !put) reflector.put(object('a', 10))
      put ||= reflector.synced
      return each.length === 3
    })
    expect(log).toEqual(['- -> uid-a@1', 'uid-a@1 -> uid-a@10', 'uid-a@10 -> uid-a@11'])
  })

  it('does not bring back by a put what the watch has seen go', async () => {
    const server = new Server()
    server.lists.push(page(7, [object('a', 1)]))
    server.watches.push([{ type: 'DELETED', object: object('a', 9) }])
    const { reflector } = await reflect(server, log => log.length === 2)
    reflector.put(object('a', 8))
    expect(reflector.get('ns/a')).toBeUndefined()
  })

  it('keeps over a list what was written after the list was taken', async () => {
    const server = new Server()
    server.lists.push(page(7, []), page(8, []))
    server.watches.push([expired])
    let put = false
    const { reflector } = await reflect(server, (_, each) => {
      if (each.synced && !put) each.put(object('a', 9))
      put ||= each.synced
      return server.requests.length >= 4
    })
    expect(reflector.get('ns/a')?.metadata.resourceVersion).toBe('9')
  })
})

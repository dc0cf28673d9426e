// A proxy between the operator and the API server that fails as networks and servers fail.

import { writeFileSync } from 'node:fs'
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import { Agent, request } from 'node:https'
import { KubeConfig } from '@kubernetes/client-node'

type Refusal = { code: number; body: object; headers?: Record<string, string> }
type Match = (method: string, url: string) => boolean

export const isWatch: Match = (method, url) => method === 'GET' && url.includes('watch=true')
export const isList: Match = (method, url) => method === 'GET' && !url.includes('watch=true')
export const isWrite: Match = method => method !== 'GET'

const decode = (data: string | undefined) => Buffer.from(data ?? '', 'base64')

/** Writes, except for renewals of a Lease, which come all the time. */
export const isAct: Match = (method, url) => method !== 'GET' && !url.includes('/leases')

export class FaultProxy {
  /** Every request that passed, e.g. `GET /api/v1/pods?…`. */
  readonly requests: string[] = []
  /** Writes (isAct) that reached the server, with the time in milliseconds since 1970. */
  readonly acts: { at: number; request: string }[] = []
  /** Pods that the server created, with the time in milliseconds since 1970. */
  readonly made: { at: number; name: string }[] = []
  /** Milliseconds from each refusal until the same request came again. */
  readonly waits: number[] = []
  /** Page size of all lists, whatever was asked for. */
  pageSize: number | undefined
  /** Milliseconds that the clock of every third answer is ahead. */
  dateAheadMilliseconds = 0
  #answers = 0
  /** Number of requests that came while the proxy was cut off. */
  turnedAway = 0
  readonly #server: Server
  readonly #watches = new Set<ServerResponse>()
  #refusals: { match: Match; refusal: Refusal; times: number }[] = []
  /** Watches that stay open, but receive nothing any more. */
  #mute = new Set<ServerResponse>()
  #delayMilliseconds = 0
  #isCut = false
  readonly #refusedAt = new Map<string, number>()
  #last: { match: Match; reached: (request: string) => void } | undefined

  private constructor(server: Server) {
    this.#server = server
  }

  /** Starts a proxy and writes a kubeconfig that leads through it. */
  static async start(kubeconfig: string, through: string): Promise<FaultProxy> {
    const config = new KubeConfig()
    config.loadFromFile(kubeconfig)
    const user = config.getCurrentUser()
    const target = new URL(config.getCurrentCluster()?.server ?? '')
    const agent = new Agent({
      keepAlive: true,
      ca: decode(config.getCurrentCluster()?.caData),
      cert: decode(user?.certData),
      key: decode(user?.keyData),
    })
    const server = createServer((incoming, outgoing) => proxy.#forward(incoming, outgoing, { target, agent }))
    const proxy = new FaultProxy(server)
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const cluster = { name: 'c', cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } }
    const contexts = [{ name: 'x', context: { cluster: 'c', user: 'u' } }]
    writeFileSync(
      through,
      JSON.stringify({ clusters: [cluster], users: [{ name: 'u', user: {} }], contexts, 'current-context': 'x' }),
    )
    return proxy
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise(resolve => this.#server.close(resolve))
  }

  /** Answers the next matching requests with an error, without sending them to the server. */
  refuse(
    match: Match,
    code: number,
    { times = 1, retryAfter }: { times?: number; retryAfter?: number | undefined } = {},
  ): void {
    const body = {
      kind: 'Status',
      apiVersion: 'v1',
      status: 'Failure',
      code,
      message: `fault ${code}`,
      reason: code === 410 ? 'Expired' : '',
    }
    const headers = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }
    this.#refusals.push({ match, refusal: { code, body, headers }, times })
  }

  /** Number of refusals that are left. */
  get pending(): number {
    return this.#refusals.length
  }

  /** Names of the pods that the server created. */
  get created(): string[] {
    return this.made.map(({ name }) => name)
  }

  get watches(): number {
    return this.#watches.size
  }

  resetWatches(): void {
    for (const watch of this.#watches) watch.socket?.resetAndDestroy()
  }

  muteWatches(): void {
    this.#mute = new Set(this.#watches)
  }

  /** Ends all watches as a server does that has forgotten the version a watch is at. */
  expireWatches(): void {
    const object = {
      kind: 'Status',
      apiVersion: 'v1',
      status: 'Failure',
      code: 410,
      reason: 'Expired',
      message: 'too old resource version',
    }
    for (const watch of this.#watches) watch.end(`${JSON.stringify({ type: 'ERROR', object })}\n`)
  }

  /** Lets nothing pass any more, including requests under way. */
  cut(): void {
    this.#isCut = true
    this.#server.closeAllConnections()
  }

  heal(): void {
    this.#isCut = false
  }

  /**
   * Lets one more matching request reach the server. Its answer does not come back, and nothing
   * passes after it. Returns the request.
   */
  async lastRequest(match: Match): Promise<string> {
    return new Promise(reached => (this.#last = { match, reached }))
  }

  /** Delays everything that the server sends. */
  delay(milliseconds: number): void {
    this.#delayMilliseconds = milliseconds
  }

  #forward(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    { target, agent }: { target: URL; agent: Agent },
  ): void {
    const { method = 'GET', url: asked = '/', headers } = incoming
    const url = this.pageSize === undefined ? asked : asked.replace(/\blimit=\d+/, `limit=${this.pageSize}`)
    if (this.#isCut) {
      this.turnedAway++
      incoming.socket.destroy()
      return
    }
    this.requests.push(`${method} ${url}`)
    const since = this.#refusedAt.get(`${method} ${url}`)
    if (since !== undefined) this.waits.push(performance.now() - since)
    this.#refusedAt.delete(`${method} ${url}`)
    const refusal = this.#take(method, url)
    if (refusal !== undefined) {
      this.#refusedAt.set(`${method} ${url}`, performance.now())
      incoming.resume()
      outgoing
        .writeHead(refusal.code, { 'content-type': 'application/json', ...refusal.headers })
        .end(JSON.stringify(refusal.body))
      return
    }
    if (isAct(method, url)) this.acts.push({ at: Date.now(), request: `${method} ${url}` })
    const last = this.#last?.match(method, url) === true ? this.#last : undefined
    if (last !== undefined) this.#isCut = true
    const { host: _, ...rest } = headers
    const upstream = request(new URL(url, target), { method, headers: rest, agent }, answer => {
      if (last !== undefined) {
        this.#last = undefined
        answer.resume().on('end', () => last.reached(`${method} ${url}`))
        return
      }
      if (answer.statusCode === 201 && /\/pods(\?|$)/.test(url)) this.#noteName(answer)
      outgoing.writeHead(answer.statusCode ?? 502, this.#dated(answer.headers))
      outgoing.flushHeaders()
      if (isWatch(method, url)) this.#watches.add(outgoing)
      answer.on('data', (chunk: Buffer) => {
        const send = () => this.#mute.has(outgoing) || outgoing.write(chunk)
        if (this.#delayMilliseconds > 0) setTimeout(send, this.#delayMilliseconds)
        else send()
      })
      answer.on('end', () => setTimeout(() => outgoing.end(), this.#delayMilliseconds))
      answer.on('error', () => outgoing.destroy())
    })
    upstream.on('error', () => outgoing.destroy())
    outgoing.on('close', () => {
      this.#watches.delete(outgoing)
      if (last === undefined) upstream.destroy()
    })
    incoming.pipe(upstream)
  }

  #dated(headers: IncomingHttpHeaders): IncomingHttpHeaders {
    const { date = '' } = headers
    const isWrong = ++this.#answers % 3 === 0 && this.dateAheadMilliseconds !== 0
    return isWrong
      ? { ...headers, date: new Date(Date.parse(date) + this.dateAheadMilliseconds).toUTCString() }
      : headers
  }

  #noteName(answer: IncomingMessage): void {
    let text = ''
    answer.on('data', (chunk: Buffer) => (text += chunk.toString()))
    answer.on('end', () => this.made.push({ at: Date.now(), name: /"name":"([^"]+)"/.exec(text)?.[1] ?? '' }))
  }

  #take(method: string, url: string): Refusal | undefined {
    const found = this.#refusals.find(({ match }) => match(method, url))
    if (found === undefined) return undefined
    found.times--
    this.#refusals = this.#refusals.filter(({ times }) => times > 0)
    return found.refusal
  }
}

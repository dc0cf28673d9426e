// The only file that knows the Kubernetes client. It is used for configuration and authentication; requests go out as
// JSON over undici, because typed calls drop unknown fields and turn times into Date objects. The server's word is taken for
// the form of what it sends; what users put into it is checked by zod where it is read.

import { setTimeout as sleep } from 'node:timers/promises'
import { HttpMethod, KubeConfig, RequestContext } from '@kubernetes/client-node'
import { Agent, type buildConnector, type Dispatcher, request } from 'undici'
import { isRecord, type Json } from '../objects/wire.ts'
import { restRequests } from '../telemetry.ts'
import { clock } from './clock.ts'
import { ApiError, messageOf, Unusable, Waiting } from './errors.ts'
import { Pace, type PaceOptions } from './pace.ts'

export type Query = Record<string, string | number | boolean | undefined>
export type Request = {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  query?: Query
  body?: unknown
  /** Of a PATCH. */
  contentType?: string
  accept?: string
  timeoutMilliseconds?: number
  signal?: AbortSignal
}
/** Without `pace`, or at 0 per second, only the server's own limits hold. */
export type WriteLimits = {
  pace?: PaceOptions
  /**
   * Milliseconds that a write may be under way from now; where none are left, none is sent. One of a process that is paused before it is sent ends
   * with this time: timers come before sockets when the process goes on.
   */
  budget?: () => number
}
export const APPLY_PATCH = 'application/apply-patch+yaml'
/** Of an object in an answer only its metadata: the rest is what was sent, and the server need not write it. */
export const METADATA_ONLY = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1'

const REQUEST_TIMEOUT = 30_000
const THROTTLE_RETRIES = 5
const THROTTLE_LONGEST = 30_000
const FENCED_MILLISECONDS = 1000
const CREDENTIALS_MILLISECONDS = 10_000
/** For requests; a watch has a connection to itself. More of them are a burst of handshakes before anything is sent faster. */
const CONNECTIONS = 32
/** Of a connection that is not used: the server keeps one for 90 s; what was cut off meanwhile is noticed only when it is used. */
const KEPT_MILLISECONDS = 30_000

type Pool = 'requests' | 'watches'
type Credentials = { headers: Record<string, string>; dispatcher: Dispatcher | undefined; until: number }

/** Connection pools of its own to one API server. */
export class Kube {
  readonly #pools: Record<Pool, KubeConfig>
  readonly #server: URL
  readonly #pace: Pace | undefined
  readonly #budget: () => number
  readonly #known = new Map<Pool, Credentials>()

  constructor(kubeconfig?: string, { pace, budget = () => Number.POSITIVE_INFINITY }: WriteLimits = {}) {
    this.#pace = pace === undefined || pace.perSecond === 0 ? undefined : new Pace(pace)
    this.#budget = budget
    this.#pools = {
      requests: memoiseDispatcher(load(kubeconfig), CONNECTIONS),
      watches: memoiseDispatcher(load(kubeconfig), null),
    }
    const cluster = this.#pools.requests.getCurrentCluster()
    if (cluster === null)
      throw new Unusable(
        `kubeconfig ${fileOf(kubeconfig)} has no cluster for its current-context: set it, or give another file with --kubeconfig`,
      )
    this.#server = new URL(cluster.server.endsWith('/') ? cluster.server : `${cluster.server}/`)
  }

  /** Namespace of the service account or of the kubeconfig's context. */
  get namespace(): string | undefined {
    return this.#pools.requests.getContextObject(this.#pools.requests.getCurrentContext())?.namespace
  }

  /** Waits as told where the server throttles (429); any other refusal is an ApiError. */
  async call<T>(req: Request): Promise<T> {
    for (let tries = 0; ; tries++) {
      const timeout = Math.min(req.timeoutMilliseconds ?? REQUEST_TIMEOUT, await this.#turn(req))
      const { response, text } = await this.#exchange(req, timeout)
      if (response.statusCode < 300) {
        const value: T = jsonOf(req, text)
        return value
      }
      const error = refusal(req, response, text)
      if (error.code !== 429 || tries === THROTTLE_RETRIES) throw error
      await sleep(
        Math.min(error.retryAfterMilliseconds ?? 1000, THROTTLE_LONGEST),
        undefined,
        req.signal ? { signal: req.signal } : {},
      )
    }
  }

  /** The answer in full, within so many milliseconds. */
  async #exchange(req: Request, timeout: number): Promise<{ response: Dispatcher.ResponseData; text: string }> {
    // Not AbortSignal.timeout: that keeps its timer, and what hangs on it, long after the answer.
    const late = new AbortController()
    const abort = () => late.abort(new DOMException(`no answer within ${timeout} ms`, 'TimeoutError'))
    const timer = setTimeout(abort, timeout)
    const signal = req.signal === undefined ? late.signal : AbortSignal.any([late.signal, req.signal])
    try {
      const response = await this.#send(req, {
        pool: 'requests',
        signal,
        headersTimeout: timeout,
        bodyTimeout: timeout,
      })
      return { response, text: await response.body.text() }
    } finally {
      clearTimeout(timer)
    }
  }

  /** Lines of a watch, until the server ends it; the caller judges silence and aborts. */
  async *lines<T>(req: Request, signal: AbortSignal): AsyncGenerator<T> {
    const response = await this.#send(req, { pool: 'watches', signal, headersTimeout: REQUEST_TIMEOUT, bodyTimeout: 0 })
    if (response.statusCode >= 300) throw refusal(req, response, await response.body.text())
    const decoder = new TextDecoder()
    let rest = ''
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines.filter(each => each !== '')) {
        const value: T = JSON.parse(line)
        yield value
      }
    }
  }

  /** Waits until it may go out; gives the milliseconds that it may then take. */
  async #turn({ method, path, signal }: Request): Promise<number> {
    if (method === 'GET') return Number.POSITIVE_INFINITY
    const turn = this.#pace?.turn(performance.now()) ?? 0
    if (turn > 0) await sleep(turn, undefined, signal ? { signal } : {})
    const left = Math.floor(this.#budget())
    if (left > 0) return left
    throw new Waiting(`${method} ${path} is not sent: the lease was not renewed in time`, FENCED_MILLISECONDS)
  }

  /** Files of tokens and certificates are rotated, so they are read now and then. */
  async #credentials(pool: Pool): Promise<Credentials> {
    const known = this.#known.get(pool)
    if (known !== undefined && performance.now() < known.until) return known
    const context = new RequestContext(this.#server.href, HttpMethod.GET)
    await this.#pools[pool].applySecurityAuthentication(context)
    const until = performance.now() + CREDENTIALS_MILLISECONDS
    const read = { headers: context.getHeaders(), dispatcher: context.getDispatcher(), until }
    this.#known.set(pool, read)
    return read
  }

  async #send(
    req: Request,
    { pool, ...limits }: { pool: Pool; signal: AbortSignal; headersTimeout: number; bodyTimeout: number },
  ): Promise<Dispatcher.ResponseData> {
    const url = new URL(req.path.replace(/^\//, ''), this.#server)
    for (const [name, value] of Object.entries(req.query ?? {}))
      if (value !== undefined) url.searchParams.set(name, String(value))
    const { headers, dispatcher } = await this.#credentials(pool)
    const count = (code: string) => restRequests.inc({ code, method: req.method, host: url.host })
    const sent = Date.now()
    try {
      const response = await request(url, {
        ...limits,
        method: req.method,
        headers: {
          ...headers,
          accept: req.accept ?? 'application/json',
          'user-agent': 'scmoe-operator',
          ...(req.body === undefined ? {} : { 'content-type': req.contentType ?? 'application/json' }),
        },
        ...(req.body === undefined ? {} : { body: JSON.stringify(req.body) }),
        // Else a connection is closed after each DELETE that has a body.
        reset: false,
        ...(dispatcher === undefined ? {} : { dispatcher }),
      })
      count(String(response.statusCode))
      if (response.statusCode === 401) this.#known.clear()
      clock.learn(response.headers['date'], sent)
      return response
    } catch (error) {
      count('<error>')
      throw error
    }
  }
}

function load(kubeconfig: string | undefined): KubeConfig {
  const config = new KubeConfig()
  try {
    if (kubeconfig !== undefined) config.loadFromFile(kubeconfig)
    else if (process.env['KUBERNETES_SERVICE_HOST'] !== undefined && process.env['KUBECONFIG'] === undefined)
      config.loadFromCluster()
    else config.loadFromDefault()
  } catch (error) {
    throw new Unusable(
      `kubeconfig ${fileOf(kubeconfig)} cannot be read (${messageOf(error)}): correct it, or give another file with --kubeconfig`,
      { cause: error },
    )
  }
  return config
}

const fileOf = (kubeconfig: string | undefined) => kubeconfig ?? process.env['KUBECONFIG'] ?? '(default)'

/**
 * The client makes a new dispatcher, so a new TCP and TLS connection, for each call. One per set of credentials is
 * enough; rotated files make a new one. Connections of HTTP/1.1: in one of HTTP/2 every event of a watch passes several
 * queues of a busy API server, and comes seconds late.
 */
function memoiseDispatcher(config: KubeConfig, connections: number | null): KubeConfig {
  type Create = (cluster: unknown, options: object) => Dispatcher | undefined
  type Describe = (...args: Parameters<Create>) => { type: string; connect?: buildConnector.BuildOptions }
  const create: Create = Reflect.get(config, 'createDispatcher')
  const describe: Describe = Reflect.get<object, string>(config, 'createDispatcherOptions')
  const dispatcherOf: Create = (cluster, options) => {
    const { type, connect } = describe.call(config, cluster, options)
    return type === 'agent' && connect !== undefined
      ? new Agent({ connect, allowH2: false, connections, keepAliveTimeout: KEPT_MILLISECONDS })
      : create.call(config, cluster, options)
  }
  let last: { key: string; dispatcher: Dispatcher | undefined } | undefined
  const createDispatcher: Create = (cluster, options) => {
    const key = JSON.stringify(options, (_, value: unknown) =>
      Buffer.isBuffer(value) ? value.toString('base64') : value,
    )
    if (last?.key !== key) last = { key, dispatcher: dispatcherOf(cluster, options) }
    return last.dispatcher
  }
  return Object.defineProperty(config, 'createDispatcher', { value: createDispatcher })
}

/** A proxy on the way may answer with a page of its own. */
function jsonOf({ method, path }: Request, text: string): ReturnType<typeof JSON.parse> {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Error(`${method} ${path}: the answer is not JSON: ${text.slice(0, 512)}`, { cause })
  }
}

function refusal(req: Request, response: Dispatcher.ResponseData, text: string): ApiError {
  const status = statusOf(text)
  const after = Number(response.headers['retry-after'])
  return new ApiError({
    code: response.statusCode,
    reason: typeof status['reason'] === 'string' ? status['reason'] : '',
    message: typeof status['message'] === 'string' ? status['message'] : text.slice(0, 512),
    request: `${req.method} ${req.path}`,
    retryAfterMilliseconds: Number.isFinite(after) && after >= 0 ? after * 1000 : undefined,
  })
}

/** An error's body is a Status, or a proxy's plain text. */
function statusOf(text: string): Json {
  try {
    const value: unknown = JSON.parse(text)
    return isRecord(value) ? value : {}
  } catch {
    return {}
  }
}

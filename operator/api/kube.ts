// Requests to the API server. This is the only file that imports the Kubernetes client, and only
// for configuration and authentication. Requests are sent as JSON over undici, because the client's
// typed calls drop unknown fields and turn times into Date objects. The form of an answer is
// trusted. The parts of an object that users wrote are validated where they are read.

import { setTimeout as sleep } from 'node:timers/promises'
import { HttpMethod, KubeConfig, RequestContext } from '@kubernetes/client-node'
import { Agent, type buildConnector, type Dispatcher, request } from 'undici'
import { isRecord, type Json, record } from '../objects/json.ts'
import { clock } from './clock.ts'
import { ApiError, messageOf, NoAnswer, Unusable, Waiting } from './errors.ts'
import { Pace, type PaceOptions } from './pace.ts'
import { Turns } from './turns.ts'

export type Query = Record<string, string | number | boolean | undefined>
export type Request = {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  query?: Query
  body?: unknown
  /** Default: application/json. */
  contentType?: string
  accept?: string
  timeoutMilliseconds?: number
  signal?: AbortSignal
}
export type WriteLimits = {
  /** Without it, or with 0 per second, only the server's own limits apply. */
  pace?: PaceOptions
  /**
   * Milliseconds that a write may take from now on. If none are left, the write is not sent, and
   * one that is under way is cancelled. A write of a process that is paused before sending it is
   * cancelled, too: after the pause, timers run before sockets.
   */
  budget?: () => number
}
export type KubeOptions = WriteLimits & {
  /** Called once for each request, with the HTTP status or `<error>`. */
  onRequest?: (request: { code: string; method: string; host: string }) => void
}
export const APPLY_PATCH = 'application/apply-patch+yaml'
/** Asks for the metadata of an object alone, where the caller has just sent the rest. */
export const METADATA_ONLY = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1'

const REQUEST_TIMEOUT = 30_000
const THROTTLE_RETRIES = 5
const THROTTLE_LONGEST = 30_000
/** Delay before a write is tried again that was not sent for want of a renewed Lease. */
const FENCED_MILLISECONDS = 1000
/** Files with tokens and certificates are rotated, so they are read again after this time. */
const CREDENTIALS_MILLISECONDS = 10_000
/**
 * How long an idle connection is kept. The server keeps one for 90 s. That a connection was cut off
 * is noticed only when it is used again.
 */
const KEPT_MILLISECONDS = 30_000

type Answer = { response: Dispatcher.ResponseData; text: string }
type Pool = 'requests' | 'watches'
type Credentials = { headers: Record<string, string>; dispatcher: Dispatcher | undefined; until: number }

/** A client of one API server, with connection pools of its own. */
export class Kube {
  readonly #pools: Record<Pool, KubeConfig>
  readonly #server: URL
  readonly #turns: Turns
  readonly #budget: () => number
  readonly #onRequest: KubeOptions['onRequest']
  readonly #known = new Map<Pool, Credentials>()

  constructor(kubeconfig?: string, { pace, budget = () => Number.POSITIVE_INFINITY, onRequest }: KubeOptions = {}) {
    this.#onRequest = onRequest
    this.#turns = new Turns(pace === undefined || pace.perSecond === 0 ? undefined : new Pace(pace))
    this.#budget = budget
    this.#pools = {
      requests: memoiseDispatcher(load(kubeconfig)),
      watches: memoiseDispatcher(load(kubeconfig)),
    }
    const cluster = this.#pools.requests.getCurrentCluster()
    if (cluster === null)
      throw new Unusable(
        `kubeconfig ${fileOf(kubeconfig)} has no cluster for its current-context: set it, or give another file with --kubeconfig`,
      )
    this.#server = new URL(cluster.server.endsWith('/') ? cluster.server : `${cluster.server}/`)
  }

  /** The namespace of the service account, or of the kubeconfig's context. */
  get namespace(): string | undefined {
    return this.#pools.requests.getContextObject(this.#pools.requests.getCurrentContext())?.namespace
  }

  /** Waits as the server says if it throttles (429). Any other refusal is thrown as an ApiError. */
  async call<T>(req: Request): Promise<T> {
    for (let tries = 0; ; tries++) {
      const { response, text } = await this.#inTurn(req)
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

  /** Writes take turns, so that no namespace waits for the many writes of another. */
  async #inTurn(req: Request): Promise<Answer> {
    if (req.method === 'GET') return this.#exchange(req, () => Number.POSITIVE_INFINITY)
    const release = await this.#turns.next(namespaceOf(req.path))
    try {
      if (this.#budget() < 1) throw fenced(req)
      return await this.#exchange(req, this.#budget)
    } finally {
      release()
    }
  }

  /** Reads the whole answer. `budget` is asked again when it is over, because it may have grown. */
  async #exchange(req: Request, budget: () => number): Promise<Answer> {
    const { timeoutMilliseconds: timeout = REQUEST_TIMEOUT } = req
    const end = performance.now() + timeout
    // AbortSignal.timeout would keep its timer, and all that it references, after the answer.
    const late = new AbortController()
    let timer: NodeJS.Timeout | undefined
    const check = () => {
      const left = Math.min(end - performance.now(), budget())
      if (left >= 1) timer = setTimeout(check, left)
      else late.abort(budget() >= 1 ? new NoAnswer(`${req.method} ${req.path}`, timeout) : fenced(req))
    }
    check()
    const signal = req.signal === undefined ? late.signal : AbortSignal.any([late.signal, req.signal])
    try {
      const response = await this.#send(req, { pool: 'requests', signal, headersTimeout: 0, bodyTimeout: 0 })
      return { response, text: await response.body.text() }
    } finally {
      clearTimeout(timer)
    }
  }

  /** The lines of a watch until the server ends it. The caller aborts a watch that is silent. */
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
    const count = (code: string) => this.#onRequest?.({ code, method: req.method, host: url.host })
    const sent = clock.steady
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
        // By default undici closes the connection after a DELETE with a body.
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
 * Makes the client keep its dispatcher. By default it creates one for each call, and with it a new
 * TCP and TLS connection. A new dispatcher is needed only when the credentials change.
 *
 * Connections use HTTP/1.1. With HTTP/2 every event of a watch passes several queues of a busy API
 * server and arrives seconds late.
 */
function memoiseDispatcher(config: KubeConfig): KubeConfig {
  type Create = (cluster: unknown, options: object) => Dispatcher | undefined
  type Describe = (...args: Parameters<Create>) => { type: string; connect?: buildConnector.BuildOptions }
  const create: Create = Reflect.get(config, 'createDispatcher')
  const describe: Describe = Reflect.get<object, string>(config, 'createDispatcherOptions')
  const dispatcherOf: Create = (cluster, options) => {
    const { type, connect } = describe.call(config, cluster, options)
    return type === 'agent' && connect !== undefined
      ? new Agent({ connect, allowH2: false, keepAliveTimeout: KEPT_MILLISECONDS })
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

const fenced = ({ method, path }: Request) =>
  new Waiting(`${method} ${path} is not sent: the lease was not renewed in time`, FENCED_MILLISECONDS)

/** The namespace in a path of the API, empty if there is none. */
const namespaceOf = (path: string): string => /\/namespaces\/([^/]+)/.exec(path)?.[1] ?? ''

/** Throws with the start of the text, because a proxy may answer with a page of its own. */
function jsonOf({ method, path }: Request, text: string): ReturnType<typeof JSON.parse> {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Error(`${method} ${path}: the answer is not JSON: ${text.slice(0, 512)}`, { cause })
  }
}

function refusal(req: Request, response: Dispatcher.ResponseData, text: string): ApiError {
  const status = statusOf(text)
  const { kind } = record(status['details'])
  const after = Number(response.headers['retry-after'])
  return new ApiError({
    code: response.statusCode,
    reason: typeof status['reason'] === 'string' ? status['reason'] : '',
    kind: typeof kind === 'string' ? kind : '',
    message: typeof status['message'] === 'string' ? status['message'] : text.slice(0, 512),
    request: `${req.method} ${req.path}`,
    retryAfterMilliseconds: Number.isFinite(after) && after >= 0 ? after * 1000 : undefined,
  })
}

/** The body of an error: a Status, or the plain text of a proxy, which gives an empty object. */
function statusOf(text: string): Json {
  try {
    const value: unknown = JSON.parse(text)
    return isRecord(value) ? value : {}
  } catch {
    return {}
  }
}

// The client of the cluster that the user's kubeconfig names. No other file of cli/ knows the
// Kubernetes client library, which serves for configuration and authentication. Every refusal
// becomes one sentence that says what to do.

import type { KubeConfig } from '@kubernetes/client-node'
import type { Dispatcher } from 'undici'

export interface ClusterOptions {
  kubeconfig?: string | undefined
  context?: string | undefined
  namespace?: string | undefined
}

export type Query = Readonly<Record<string, string | number | boolean | undefined>>
interface Ask {
  method?: 'GET' | 'PATCH'
  query?: Query | undefined
  body?: object
  signal?: AbortSignal | undefined
}

/** An error that the user, or an administrator of the cluster, can correct. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError'
  /** HTTP status; undefined if no server answered. */
  readonly code: number | undefined

  constructor(message: string, code?: number) {
    super(message)
    this.code = code
  }
}

/** Loading takes half a second, for which commands that need no cluster do not wait. */
const load = async () => ({ client: await import('@kubernetes/client-node'), undici: await import('undici') })
type Libraries = Awaited<ReturnType<typeof load>>

const TIMEOUT_MILLISECONDS = 30_000

export class Cluster {
  /** The namespace of the options, otherwise that of the context, otherwise `default`. */
  readonly namespace: string
  readonly #config: KubeConfig
  readonly #server: URL
  readonly #libraries: Libraries
  /** Kept, because the client library would open a new connection for each request. */
  #dispatcher: Dispatcher | undefined

  private constructor(config: KubeConfig, libraries: Libraries, namespace: string | undefined) {
    this.#config = config
    this.#libraries = libraries
    const current = config.getCurrentContext()
    const cluster = config.getCurrentCluster()
    if (cluster === null)
      throw new ClusterError(
        current
          ? `the kubeconfig has no cluster for context "${current}": choose another with --context`
          : 'the kubeconfig has no current context: choose one with --context',
      )
    this.#server = new URL(cluster.server.endsWith('/') ? cluster.server : `${cluster.server}/`)
    this.namespace = namespace ?? config.getContextObject(current)?.namespace ?? 'default'
  }

  /** Reads the kubeconfig; throws ClusterError if it names no cluster. Sends no request. */
  static async connect(options: ClusterOptions): Promise<Cluster> {
    const libraries = await load()
    return new Cluster(configure(new libraries.client.KubeConfig(), options), libraries, options.namespace)
  }

  async get<T>(path: string, query?: Query): Promise<T> {
    const value: T = JSON.parse(await this.text(path, query))
    return value
  }

  async text(path: string, query?: Query): Promise<string> {
    const { body } = await this.#send(path, { query, signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS) })
    return body.text()
  }

  /** Yields lines as they arrive, until the server ends the answer or `signal` aborts. */
  async *lines(path: string, query: Query, signal: AbortSignal): AsyncGenerator<string> {
    const { body } = await this.#send(path, { query, signal })
    const decoder = new TextDecoder()
    let rest = ''
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
      rest = lines.pop() ?? ''
      yield* lines
    }
    if (rest !== '') yield rest
  }

  async mergePatch<T>(path: string, body: object): Promise<T> {
    const signal = AbortSignal.timeout(TIMEOUT_MILLISECONDS)
    const response = await this.#send(path, { method: 'PATCH', body, signal })
    const value: T = JSON.parse(await response.body.text())
    return value
  }

  async #send(path: string, { method = 'GET', query = {}, body, signal }: Ask): Promise<Dispatcher.ResponseData> {
    const url = new URL(path.replace(/^\//, ''), this.#server)
    for (const [name, value] of Object.entries(query))
      if (value !== undefined) url.searchParams.set(name, String(value))
    const { client, undici } = this.#libraries
    const context = new client.RequestContext(url.href, client.HttpMethod.GET)
    const response = await this.#answer(async () => {
      await this.#config.applySecurityAuthentication(context)
      this.#dispatcher ??= context.getDispatcher()
      return undici.request(url, {
        method,
        headers: {
          ...context.getHeaders(),
          accept: 'application/json, */*',
          'user-agent': 'scmoe',
          ...(body && { 'content-type': 'application/merge-patch+json' }),
        },
        bodyTimeout: 0,
        ...(body && { body: JSON.stringify(body) }),
        ...(signal && { signal }),
        ...(this.#dispatcher && { dispatcher: this.#dispatcher }),
      })
    })
    if (response.statusCode < 300) return response
    throw refusal(response.statusCode, wordsOf(await response.body.text()))
  }

  async #answer<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (error) {
      const context = this.#config.getCurrentContext()
      throw new ClusterError(
        `the API server ${this.#server.origin} of context "${context}" does not answer (${causeOf(error)}). Check that the cluster is up and that the context is the right one: \`kubectl config get-contexts\` lists others for --context`,
      )
    }
  }
}

function configure(config: KubeConfig, { kubeconfig, context }: ClusterOptions): KubeConfig {
  try {
    if (kubeconfig === undefined) config.loadFromDefault()
    else config.loadFromFile(kubeconfig)
  } catch (error) {
    const file = kubeconfig ?? process.env['KUBECONFIG'] ?? '~/.kube/config'
    throw new ClusterError(
      `the kubeconfig ${file} cannot be read (${causeOf(error)}): correct it or give another with --kubeconfig`,
    )
  }
  // The client library makes up this context if there is no kubeconfig.
  if (config.getCurrentContext() === 'loaded-context' && config.getCurrentCluster()?.server === 'http://localhost:8080')
    throw new ClusterError('there is no kubeconfig: set KUBECONFIG or give --kubeconfig')
  if (context === undefined) return config
  const names = config.getContexts().map(({ name }) => name)
  if (!names.includes(context))
    throw new ClusterError(`the kubeconfig has no context "${context}"; there are: ${names.join(', ')}`)
  config.setCurrentContext(context)
  return config
}

function refusal(code: number, words: string): ClusterError {
  if (code === 401)
    return new ClusterError(`the API server does not accept your credentials (${words}): log in again`, code)
  if (code === 403)
    return new ClusterError(
      `not allowed: ${words}. Role \`view\` of the namespace is enough for top, why and logs, \`edit\` for trace, suspend and resume`,
      code,
    )
  return new ClusterError(`the API server answers ${code}: ${words}`, code)
}

/** The body of an error is a Status object, or plain text from a proxy or a pod. */
function wordsOf(text: string): string {
  try {
    const { message }: { message?: unknown } = JSON.parse(text)
    if (typeof message === 'string') return message
  } catch {
    // Not JSON.
  }
  return text.trim().slice(0, 512)
}

function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // If several addresses were tried, Node reports an error that has no text of its own.
  const inner = error instanceof AggregateError ? error.errors[0] : error.cause
  return error.message === '' && inner instanceof Error ? inner.message : error.message || error.name
}

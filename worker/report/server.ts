// The HTTP server of a worker: /progress on rank 0; /trace, /metrics, /healthz and /readyz on every
// rank.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { ENV } from '../../crds/contract.ts'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'
import { Callers } from './callers.ts'
import type { WorkerMetrics } from './metrics.ts'
import type { RunRecord } from './record.ts'

export interface Reported {
  record: RunRecord
  metrics: WorkerMetrics
  rank: number
  /** True after the rendezvous. */
  ready: boolean
  /** Makes the Chrome trace of the last step. */
  trace: (() => string) | undefined
}

interface Page {
  status: number
  type: string
  /** Bytes are shared by all who read them; a string would be copied for each of them. */
  body: string | Buffer
}

const text = (status: number, body: string): Page => ({ status, type: 'text/plain; charset=utf-8', body: `${body}\n` })
const json = (body: string | Buffer): Page => ({ status: 200, type: 'application/json', body })

/**
 * A caller that does not finish its question within this time is dropped, and the connections are
 * looked through as often. The kubelet waits two seconds for the answer to a probe.
 */
const QUESTION_MILLISECONDS = 1000
/** A trace has megabytes. A caller that does not read its answer within this time is dropped. */
const ANSWER_MILLISECONDS = 30_000
const MOST = { idle: 128, held: 16 } as const
/** Linux allows as many by default (net.core.somaxconn). */
const BACKLOG = 4096
/** Metrics are computed at most once in this time. */
const METRICS_MILLISECONDS = 250

const SET = `network.httpPort of the job (without an operator ${ENV.httpPort})`

/** Serves `reported` until closed. Throws `portInUse` naming the port. */
export async function serveReport(reported: Reported, at: { port: number; host?: string }): Promise<Server> {
  const pages = new Pages(reported)
  const server = createServer(
    {
      headersTimeout: QUESTION_MILLISECONDS,
      requestTimeout: QUESTION_MILLISECONDS,
      connectionsCheckingInterval: QUESTION_MILLISECONDS / 4,
      keepAliveTimeout: 5000,
      maxHeaderSize: 8192,
    },
    (request, response) => {
      callers.hold(request.socket)
      const slow = setTimeout(() => response.destroy(), ANSWER_MILLISECONDS).unref()
      response.once('close', () => {
        clearTimeout(slow)
        callers.release(request.socket)
      })
      pages
        .answer(request)
        .catch((error: unknown) => text(500, errnoText(error)))
        .then(page => send(response, page))
        .catch(() => response.destroy())
    },
  )
  const callers = new Callers(server, MOST)
  server.maxRequestsPerSocket = 100
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ ...at, backlog: BACKLOG }, resolve)
  }).catch((error: unknown) => {
    const advice =
      errnoCode(error) === 'EADDRINUSE'
        ? `another process of the pod listens there; stop it or set ${SET}`
        : `set ${SET}`
    throw new WorkerFailure(
      'portInUse',
      `The worker cannot serve its reports on port ${at.port} (${errnoText(error)}): ${advice}.`,
    )
  })
  // The server must not keep the process alive.
  server.unref()
  return server
}

/**
 * The pages of one worker. What takes long is computed once for all who ask, because they ask the
 * thread that also starts the steps.
 */
class Pages {
  readonly #reported: Reported
  #trace: { of: () => string; page: Page } | undefined
  #metrics: { time: number; page: Promise<Page> } | undefined

  constructor(reported: Reported) {
    this.#reported = reported
  }

  async answer(request: IncomingMessage): Promise<Page> {
    const { ready, rank, record } = this.#reported
    if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'use GET')
    const [path = '/'] = (request.url ?? '/').split('?', 1)
    switch (path) {
      case '/healthz':
        return text(200, 'ok')
      case '/readyz':
        return ready ? text(200, 'ok') : text(503, 'waiting for the other ranks')
      case '/metrics':
        return this.#recentMetrics()
      case '/progress':
        if (rank !== 0) return text(404, `this is rank ${rank}; rank 0 serves /progress`)
        return json(JSON.stringify(record.progress()))
      case '/trace':
        return this.#lastTrace()
      default:
        return text(404, 'use /progress, /metrics, /healthz, /readyz or /trace')
    }
  }

  #lastTrace(): Page {
    const { trace } = this.#reported
    if (trace === undefined) return text(404, 'no step has been run yet')
    if (this.#trace?.of !== trace) this.#trace = { of: trace, page: json(Buffer.from(trace())) }
    return this.#trace.page
  }

  async #recentMetrics(): Promise<Page> {
    const time = performance.now()
    if (this.#metrics === undefined || time - this.#metrics.time > METRICS_MILLISECONDS)
      this.#metrics = { time, page: this.#currentMetrics() }
    return this.#metrics.page
  }

  async #currentMetrics(): Promise<Page> {
    const { registry } = this.#reported.metrics
    return { status: 200, type: registry.contentType, body: await registry.metrics() }
  }
}

function send(response: ServerResponse, { status, type, body }: Page): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  })
  response.end(response.req.method === 'HEAD' ? undefined : body)
}

// The HTTP server of a worker: /progress on rank 0; /trace, /metrics, /healthz and /readyz on every
// rank.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { ENV } from '../../crds/contract.ts'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'
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
  body: string
}

const text = (status: number, body: string): Page => ({ status, type: 'text/plain; charset=utf-8', body: `${body}\n` })
const json = (body: string): Page => ({ status: 200, type: 'application/json', body })

const SET = `network.httpPort of the job (without an operator ${ENV.httpPort})`

/** Serves `reported` until closed. Throws `portInUse` naming the port. */
export async function serveReport(reported: Reported, at: { port: number; host?: string }): Promise<Server> {
  const server = createServer((request, response) => {
    answer(reported, request)
      .catch((error: unknown) => text(500, errnoText(error)))
      .then(page => send(response, page))
      .catch(() => response.destroy())
  })
  server.requestTimeout = 5000
  server.headersTimeout = 5000
  server.maxConnections = 64
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(at, resolve)
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

async function answer(reported: Reported, request: IncomingMessage): Promise<Page> {
  if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'use GET')
  const path = new URL(request.url ?? '/', 'http://worker').pathname
  switch (path) {
    case '/healthz':
      return text(200, 'ok')
    case '/readyz':
      return reported.ready ? text(200, 'ok') : text(503, 'waiting for the other ranks')
    case '/metrics':
      return {
        status: 200,
        type: reported.metrics.registry.contentType,
        body: await reported.metrics.registry.metrics(),
      }
    case '/progress':
      if (reported.rank !== 0) return text(404, `this is rank ${reported.rank}; rank 0 serves /progress`)
      return json(JSON.stringify(reported.record.progress()))
    case '/trace':
      return reported.trace ? json(reported.trace()) : text(404, 'no step has been run yet')
    default:
      return text(404, 'use /progress, /metrics, /healthz, /readyz or /trace')
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

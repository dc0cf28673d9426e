// Logs, metrics, and the HTTP endpoints for metrics and health. Where controller-runtime has a
// metric of the same meaning, its name is used.

import { createServer, type Server, type ServerResponse } from 'node:http'
import { type Logger, pino } from 'pino'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { messageOf, Unusable } from './api/errors.ts'

export type { Logger } from 'pino'

const CONTROLLER_NAME = 'scmoejob'
const registry = new Registry()
const registers = [registry]
collectDefaultMetrics({ register: registry })
const buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

const counter = (name: string, help: string, labelNames: string[]) => new Counter({ name, help, labelNames, registers })
const gauge = (name: string, help: string, labelNames: string[]) => new Gauge({ name, help, labelNames, registers })
const histogram = (name: string, help: string, labelNames: string[]) =>
  new Histogram({ name, help, labelNames, buckets, registers })

const apiRequests = counter('rest_client_requests_total', 'Requests to the API server.', ['code', 'method', 'host'])

const reconciles = counter('controller_runtime_reconcile_total', 'Reconciles by result.', ['controller', 'result'])
const reconcileErrors = counter('controller_runtime_reconcile_errors_total', 'Reconciles that failed.', ['controller'])
const reconcileTime = histogram('controller_runtime_reconcile_time_seconds', 'Time of a reconcile.', ['controller'])
const reconciling = gauge('controller_runtime_active_workers', 'Reconciles that are under way.', ['controller'])
const reconcilers = gauge(
  'controller_runtime_max_concurrent_reconciles',
  'Largest number of reconciles at the same time.',
  ['controller'],
)
const depth = gauge('workqueue_depth', 'Keys that wait in the queue.', ['name', 'controller'])
const adds = counter('workqueue_adds_total', 'Keys added to the queue.', ['name', 'controller'])
const retries = counter('workqueue_retries_total', 'Keys added again after a failure.', ['name', 'controller'])
const queueTime = histogram('workqueue_queue_duration_seconds', 'Time that a key waited in the queue.', [
  'name',
  'controller',
])
const workTime = histogram('workqueue_work_duration_seconds', 'Time of the work on a key.', ['name', 'controller'])
const unfinished = gauge(
  'workqueue_unfinished_work_seconds',
  'Sum of the times since the work on each key under way began.',
  ['name', 'controller'],
)
const longest = gauge(
  'workqueue_longest_running_processor_seconds',
  'Longest time since the work on a key under way began.',
  ['name', 'controller'],
)
const leader = gauge('leader_election_master_status', '1 while this replica is the leader, otherwise 0.', ['name'])

const jobs = gauge('scmoejob_jobs', 'Jobs by state.', ['namespace', 'state'])
const tokens = gauge('scmoejob_tokens_per_second', 'Tokens per second over all running jobs.', ['namespace'])
const restarts = counter('scmoejob_restarts_total', 'Restarts of gangs.', ['namespace'])
const statusWrites = counter('scmoejob_status_writes_total', 'Status writes by field owner.', ['owner'])
const scrapes = counter('scmoejob_progress_scrapes_total', 'Requests to /progress by result.', ['result'])
const watchProblems = counter(
  'scmoejob_watch_problems_total',
  'Watches and lists that failed and were opened again.',
  [],
)

export type ReconcileResult = 'success' | 'requeue_after' | 'requeue' | 'error'
const label = { controller: CONTROLLER_NAME }
const queueLabel = { name: CONTROLLER_NAME, controller: CONTROLLER_NAME }

export const metrics = {
  apiRequest: (request: { code: string; method: string; host: string }) => apiRequests.inc(request),
  reconcileStarted: () => reconciling.inc(label),
  reconciled: (result: ReconcileResult, milliseconds: number) => {
    reconciling.dec(label)
    reconciles.inc({ ...label, result })
    if (result === 'error') reconcileErrors.inc(label)
    reconcileTime.observe(label, milliseconds / 1000)
  },
  concurrency: (n: number) => reconcilers.set(label, n),
  queue: {
    onAdd: () => adds.inc(queueLabel),
    onRetry: () => retries.inc(queueLabel),
    onStart: (milliseconds: number) => queueTime.observe(queueLabel, milliseconds / 1000),
    onDone: (milliseconds: number) => workTime.observe(queueLabel, milliseconds / 1000),
  },
  leader: (name: string, leads: boolean) => leader.set({ name }, leads ? 1 : 0),
  restarted: (namespace: string) => restarts.inc({ namespace }),
  statusWritten: (owner: string) => statusWrites.inc({ owner }),
  scraped: (result: string) => scrapes.inc({ result }),
  watchProblem: () => watchProblems.inc(),
}

/** Values that are read when the metrics are asked for. */
export type Snapshot = {
  depth: number
  /** For each key under way, the milliseconds since the work on it began. */
  underWay: readonly number[]
  jobs: readonly { namespace: string; state: string; tokensPerSecond: number }[]
}

function take(snapshot: Snapshot): void {
  depth.set(queueLabel, snapshot.depth)
  unfinished.set(queueLabel, snapshot.underWay.reduce((sum, each) => sum + each, 0) / 1000)
  longest.set(queueLabel, Math.max(0, ...snapshot.underWay) / 1000)
  jobs.reset()
  tokens.reset()
  for (const job of snapshot.jobs) {
    jobs.inc({ namespace: job.namespace, state: job.state })
    tokens.inc({ namespace: job.namespace }, job.tokensPerSecond)
  }
}

export function makeLogger(level: string): Logger {
  return pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: name => ({ level: name }) },
  })
}

type Answer = { status: number; body: string; type?: string }
const NOT_FOUND: Answer = { status: 404, body: 'not found\n' }

const reply = (response: ServerResponse, { status, body, type = 'text/plain; charset=utf-8' }: Answer) =>
  response.writeHead(status, { 'content-type': type }).end(body)

/** Serves GET on the given paths. Port 0 serves nothing. `flag` names the port in an error. */
async function serve(
  flag: string,
  port: number,
  paths: Record<string, () => Answer | Promise<Answer>>,
): Promise<Server | undefined> {
  if (port === 0) return undefined
  const server = createServer((request, response) => {
    const name = request.url?.split('?')[0] ?? ''
    const path = Object.hasOwn(paths, name) ? paths[name] : undefined
    const answer = path === undefined || request.method !== 'GET' ? NOT_FOUND : path()
    Promise.resolve(answer).then(
      given => reply(response, given),
      (error: unknown) => reply(response, { status: 500, body: `${String(error)}\n` }),
    )
  })
  await new Promise<void>((resolve, reject) => {
    const refused = (cause: Error) =>
      reject(new Unusable(`${flag} ${port}: ${messageOf(cause)}; give another port, or 0 for none`, { cause }))
    server.once('error', refused).listen(port, resolve)
  })
  return server
}

export async function serveMetrics(port: number, snapshot: () => Snapshot): Promise<Server | undefined> {
  return serve('--metrics-port', port, {
    '/metrics': async () => {
      take(snapshot())
      return { status: 200, body: await registry.metrics(), type: registry.contentType }
    },
  })
}

/** `ready` says whether the caches are full. A standby is ready, too. */
export async function serveHealth(port: number, ready: () => boolean): Promise<Server | undefined> {
  return serve('--health-port', port, {
    '/healthz': () => ({ status: 200, body: 'ok\n' }),
    '/readyz': () => (ready() ? { status: 200, body: 'ok\n' } : { status: 503, body: 'caches are not full yet\n' }),
  })
}

// Asks rank 0 of every running job for its progress. The loop is separate from the reconciles, so
// that a worker that does not answer delays no other job. An answer is not trusted: its size, time
// and form are checked, and whether it is about this job.

import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { LABEL, PROGRESS_MAX_BYTES, Progress } from '../crds/contract.ts'
import { clock } from './api/clock.ts'
import { messageOf, Waiting } from './api/errors.ts'
import { Shares } from './api/shares.ts'
import { isOwnedBy } from './objects/owned.ts'
import { isReady } from './objects/pod-state.ts'
import { type Job, keyOf, type Pod, podName } from './objects/wire.ts'
import { type Report, reportFrom, reportingInterval, reportingPort } from './plan/report.ts'
import { type LastAnswer, readStatus } from './plan/view.ts'
import type { Logger } from './telemetry.ts'

export type ScraperOptions = {
  jobs: () => Iterable<Job>
  job: (key: string) => Job | undefined
  pod: (namespace: string, name: string) => Pod | undefined
  report: (job: Job, report: Report) => Promise<unknown>
  onScrape: (result: Scrape['result']) => void
  log: Logger
  /** Default: the job's network.httpPort. */
  port?: number | undefined
  /**
   * While true, fewer jobs of this namespace are asked, because every answer costs a write to the
   * API server.
   */
  shouldYield?: (namespace: string) => boolean
}
export type Scrape =
  | { result: 'ok'; progress: Progress }
  | { result: 'unreachable' | 'oversized' | 'garbage' | 'foreign'; problem: string }

const TICK_MILLISECONDS = 1000
const TIMEOUT_MILLISECONDS = 2000
/** Requests at the same time. With answers of the largest size they take 8 MiB. */
const CONCURRENCY = 128
/** A request that takes longer waits for a worker that is slow or gone. Others get its place. */
const SLOW_MILLISECONDS = 250
/** Limit of a namespace while its other requests to the API server are more urgent. */
const CONCURRENCY_YIELDING = 4
/** A job that has been due for longer is asked also then. */
const PATIENCE_MILLISECONDS = 10_000
/** Jobs that do not answer are asked less and less often, at least every so many intervals. */
const LONGEST_BACKOFF = 4

/** When a job is next due, how often in a row it did not answer, and the problem last logged. */
type Due = { at: number; failures: number; problem?: string }
type Turn = { job: Job; namespace: string; due: Due; intervalMilliseconds: number }

export class Scraper {
  readonly #options: ScraperOptions
  /** Pods come and go, so no connection is kept. */
  readonly #agent = new Agent({ pipelining: 0, connect: { timeout: TIMEOUT_MILLISECONDS } })
  /** The reporting interval of each job, undefined for a job that does not run. */
  readonly #intervals = new WeakMap<Job, number | undefined>()
  /** By job uid. */
  readonly #due = new Map<string, Due>()
  readonly #underWay = new Set<string>()
  readonly #shares = new Shares({ atOnce: CONCURRENCY, slowMilliseconds: SLOW_MILLISECONDS })
  /** Jobs under way that did not answer last time, by namespace. */
  readonly #failing = new Map<string, number>()
  /** Jobs that are due, the one that has waited longest first. Collected again with each tick. */
  #turns: Turn[] = []
  /** By job uid. */
  readonly #lastAnswers = new Map<string, LastAnswer>()

  constructor(options: ScraperOptions) {
    this.#options = options
  }

  /** The last answer of rank 0 of a running job. */
  lastAnswer(uid: string): LastAnswer | undefined {
    return this.#lastAnswers.get(uid)
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#tick()
      await sleep(TICK_MILLISECONDS, undefined, { signal }).catch(() => undefined)
    }
    await this.#agent.destroy()
  }

  #tick(): void {
    const now = performance.now()
    const running = new Set<string>()
    const turns: Turn[] = []
    for (const job of this.#options.jobs()) {
      const intervalMilliseconds = this.#intervalOf(job)
      const { uid = '' } = job.metadata
      if (intervalMilliseconds === undefined) continue
      running.add(uid)
      const due = this.#dueOf(job, now, intervalMilliseconds)
      if (due.at <= now && !this.#underWay.has(uid))
        turns.push({ job, namespace: job.metadata.namespace ?? '', due, intervalMilliseconds })
    }
    for (const uid of this.#due.keys())
      if (!running.has(uid)) {
        this.#due.delete(uid)
        this.#lastAnswers.delete(uid)
      }
    this.#turns = turns.toSorted((a, b) => a.due.at - b.due.at)
    this.#pump()
  }

  /**
   * A job that is new here but has reported before was known before the operator restarted. Such
   * a job waits for a random part of its interval, so that not all of them are due at once.
   */
  #dueOf(job: Job, now: number, intervalMilliseconds: number): Due {
    const { uid = '' } = job.metadata
    const known = this.#due.get(uid)
    if (known !== undefined) return known
    const wait = readStatus(job).progress === undefined ? 0 : Math.random() * intervalMilliseconds
    const due = { at: now + wait, failures: 0 }
    this.#due.set(uid, due)
    return due
  }

  /** Asks as many jobs as there is room for. Called again whenever there is more room. */
  #pump = (): void => {
    const now = performance.now()
    const tenants = this.#shares.tenantsWith(new Set(this.#turns.map(({ namespace }) => namespace)))
    this.#turns = this.#turns.filter(turn => {
      if (!this.#hasRoom(turn, tenants, now)) return true
      this.#start(turn)
      return false
    })
  }

  /** Jobs that did not answer last time get half of the share, so that others have the rest. */
  #hasRoom({ namespace, due }: Turn, tenants: number, now: number): boolean {
    if (!this.#shares.admits(namespace, tenants)) return false
    const yields = due.at + PATIENCE_MILLISECONDS > now && this.#options.shouldYield?.(namespace) === true
    const most = yields ? CONCURRENCY_YIELDING : this.#shares.shareOf(tenants)
    if (this.#shares.heldBy(namespace) >= most) return false
    return due.failures === 0 || (this.#failing.get(namespace) ?? 0) < Math.ceil(most / 2)
  }

  #start({ job, namespace, due, intervalMilliseconds }: Turn): void {
    const { uid = '', name } = job.metadata
    const pod = this.#options.pod(namespace, podName(name, 0))
    const address = pod?.status?.podIP
    if (pod === undefined || address === undefined || !isOwnedBy(pod, uid) || !isReady(pod)) return
    const failed = due.failures > 0
    due.at = performance.now() + intervalMilliseconds * Math.min(2 ** due.failures, LONGEST_BACKOFF)
    this.#underWay.add(uid)
    if (failed) this.#countFailing(namespace, 1)
    const free = this.#shares.take(namespace, this.#pump)
    void this.#scrape(job, pod, address).finally(() => {
      this.#underWay.delete(uid)
      if (failed) this.#countFailing(namespace, -1)
      free()
      this.#pump()
    })
  }

  #countFailing(namespace: string, change: number): void {
    const failing = (this.#failing.get(namespace) ?? 0) + change
    if (failing === 0) this.#failing.delete(namespace)
    else this.#failing.set(namespace, failing)
  }

  async #scrape(job: Job, pod: Pod, address: string): Promise<void> {
    try {
      const scrape = await this.#ask(
        `http://${address.includes(':') ? `[${address}]` : address}:${this.#options.port ?? reportingPort(job)}/progress`,
      )
      const result = scrape.result === 'ok' ? this.#match(scrape.progress, job, pod) : scrape
      this.#options.onScrape(result.result)
      this.#remember(job, result)
      if (result.result !== 'ok') return
      const { attempt, step } = result.progress
      this.#lastAnswers.set(job.metadata.uid ?? '', { attempt, step, at: clock.now() })
      await this.#write(job, result.progress)
    } catch (error) {
      // The job has changed meanwhile. The next report is due soon.
      if (error instanceof Waiting) return
      this.#options.log.warn({ job: keyOf(job), error: messageOf(error) }, 'progress not written')
    }
  }

  async #ask(url: string): Promise<Scrape> {
    const signal = AbortSignal.timeout(TIMEOUT_MILLISECONDS)
    try {
      const response = await request(url, { dispatcher: this.#agent, signal, headers: { accept: 'application/json' } })
      const chunks: Uint8Array[] = []
      let size = 0
      for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
        size += chunk.byteLength
        if (size > PROGRESS_MAX_BYTES) return { result: 'oversized', problem: `more than ${PROGRESS_MAX_BYTES} bytes` }
        chunks.push(chunk)
      }
      if (response.statusCode !== 200) return { result: 'unreachable', problem: `HTTP ${response.statusCode}` }
      return judge(Buffer.concat(chunks).toString())
    } catch (error) {
      return { result: 'unreachable', problem: messageOf(error) }
    }
  }

  /** Checks whose progress it is, because the address may belong to another pod by now. */
  #match(progress: Progress, job: Job, pod: Pod): Scrape {
    const expected = { uid: job.metadata.uid, attempt: pod.metadata.labels?.[LABEL.attempt] }
    if (progress.jobUid === expected.uid && String(progress.attempt) === expected.attempt && progress.rank === 0)
      return { result: 'ok', progress }
    return {
      result: 'foreign',
      problem: `answers for job ${progress.jobUid}, attempt ${progress.attempt}, rank ${progress.rank}`,
    }
  }

  /** While rank 0 was asked, the job may have been suspended, or deleted and created again. */
  async #write(asked: Job, progress: Progress): Promise<void> {
    const job = this.#options.job(keyOf(asked))
    if (job === undefined || job.metadata.uid !== asked.metadata.uid || this.#intervalOf(job) === undefined) return
    const report = reportFrom(job, progress, clock.now())
    if (report !== undefined) await this.#options.report(job, report)
  }

  /** Logs a problem when it is new, and not again with every request. */
  #remember(job: Job, scrape: Scrape): void {
    const due = this.#due.get(job.metadata.uid ?? '')
    if (due === undefined) return
    due.failures = scrape.result === 'ok' ? 0 : due.failures + 1
    if (scrape.result === 'ok') delete due.problem
    else if (due.problem !== scrape.result) {
      due.problem = scrape.result
      this.#options.log.warn(
        { job: keyOf(job), result: scrape.result, problem: scrape.problem },
        'no progress from rank 0',
      )
    }
  }

  #intervalOf(job: Job): number | undefined {
    if (!this.#intervals.has(job)) this.#intervals.set(job, reportingInterval(job))
    return this.#intervals.get(job)
  }
}

function judge(text: string): Scrape {
  try {
    const parsed = Progress.safeParse(JSON.parse(text))
    if (parsed.success) return { result: 'ok', progress: parsed.data }
    const issue = parsed.error.issues[0]
    return {
      result: 'garbage',
      problem: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a progress record'}`,
    }
  } catch (error) {
    return { result: 'garbage', problem: messageOf(error) }
  }
}

// Asks rank 0 of every running job how far it is. Its own loop, never inside a reconcile: a worker that does not answer
// delays nobody. What it answers is not trusted: size, time and form are checked, and that it speaks for this very job.

import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { LABEL, PROGRESS_MAX_BYTES, Progress } from '../crds/contract.ts'
import { worldSizeOf } from '../crds/ranks.ts'
import { clock } from './api/clock.ts'
import { messageOf, Waiting } from './api/errors.ts'
import { type Job, keyOf, type Pod, podName } from './objects/wire.ts'
import { isReady } from './plan/gang.ts'
import { type Report, reportOf, same } from './plan/report.ts'
import { type Heard, isOwnedBy, readSpec, readStatus, sizeOf } from './plan/view.ts'
import type { Logger } from './telemetry.ts'

export type ScraperOptions = {
  jobs: () => Iterable<Job>
  job: (key: string) => Job | undefined
  pod: (namespace: string, name: string) => Pod | undefined
  report: (job: Job, report: Report) => Promise<unknown>
  onScrape: (result: Scrape['result']) => void
  log: Logger
  port: number
  /** Others need the API server more: fewer are asked, as every answer is written there. */
  yields?: () => boolean
}
export type Scrape =
  | { result: 'ok'; progress: Progress }
  | { result: 'unreachable' | 'oversized' | 'garbage' | 'foreign'; problem: string }

const TICK_MILLISECONDS = 1000
const TIMEOUT_MILLISECONDS = 2000
/** With the largest answers these are 8 MiB. */
const CONCURRENCY = 128
/** Jobs that did not answer last time leave the other half to those that did. */
const CONCURRENCY_FAILING = CONCURRENCY / 2
/** While others need the API server more. */
const CONCURRENCY_YIELDING = 1
/** Those are asked less and less often, at least every so many intervals. */
const LONGEST_BACKOFF = 4

type Settings = { running: boolean; intervalMilliseconds: number }
type Due = { at: number; failures: number; problem?: string }
type Turn = { job: Job; due: Due; intervalMilliseconds: number }

export class Scraper {
  readonly #options: ScraperOptions
  /** Pods come and go: no connection is kept. */
  readonly #agent = new Agent({ pipelining: 0, connect: { timeout: TIMEOUT_MILLISECONDS } })
  readonly #settings = new WeakMap<Job, Settings>()
  /** By job uid: when it is next due, how often in turn it did not answer, and which problem has been logged. */
  readonly #due = new Map<string, Due>()
  readonly #underWay = new Set<string>()
  #failing = 0
  /** Due, whoever has waited longest first; made anew with each tick. */
  #turns: Turn[] = []
  readonly #heard = new Map<string, Heard>()

  constructor(options: ScraperOptions) {
    this.#options = options
  }

  /** What rank 0 of a running job last answered. */
  heard(uid: string): Heard | undefined {
    return this.#heard.get(uid)
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
      const { running: runs, intervalMilliseconds } = this.#settingsOf(job)
      const { uid = '' } = job.metadata
      if (!runs) continue
      running.add(uid)
      const due = this.#dueOf(job, now, intervalMilliseconds)
      if (due.at <= now && !this.#underWay.has(uid)) turns.push({ job, due, intervalMilliseconds })
    }
    for (const uid of this.#due.keys())
      if (!running.has(uid)) {
        this.#due.delete(uid)
        this.#heard.delete(uid)
      }
    this.#turns = turns.toSorted((a, b) => a.due.at - b.due.at)
    this.#pump()
  }

  /** A job that has reported before is known from before a restart: so that not all of those are due at once, it waits for a part of its interval. */
  #dueOf(job: Job, now: number, intervalMilliseconds: number): Due {
    const { uid = '' } = job.metadata
    const known = this.#due.get(uid)
    if (known !== undefined) return known
    const wait = readStatus(job).progress === undefined ? 0 : Math.random() * intervalMilliseconds
    const due = { at: now + wait, failures: 0 }
    this.#due.set(uid, due)
    return due
  }

  /** Starts what there is room for; called again whenever there is more room. */
  #pump(): void {
    const most = this.#options.yields?.() === true ? CONCURRENCY_YIELDING : CONCURRENCY
    this.#turns = this.#turns.filter(turn => {
      if (this.#underWay.size >= most) return true
      if (turn.due.failures > 0 && this.#failing >= CONCURRENCY_FAILING) return true
      this.#start(turn)
      return false
    })
  }

  #start({ job, due, intervalMilliseconds }: Turn): void {
    const { uid = '', namespace = '', name } = job.metadata
    const pod = this.#options.pod(namespace, podName(name, 0))
    const address = pod?.status?.podIP
    if (pod === undefined || address === undefined || !isOwnedBy(pod, uid) || !isReady(pod)) return
    const failed = due.failures > 0
    due.at = performance.now() + intervalMilliseconds * Math.min(2 ** due.failures, LONGEST_BACKOFF)
    this.#underWay.add(uid)
    if (failed) this.#failing++
    void this.#scrape(job, pod, address).finally(() => {
      this.#underWay.delete(uid)
      if (failed) this.#failing--
      this.#pump()
    })
  }

  async #scrape(job: Job, pod: Pod, address: string): Promise<void> {
    try {
      const scrape = await this.#ask(
        `http://${address.includes(':') ? `[${address}]` : address}:${this.#options.port}/progress`,
      )
      const result = scrape.result === 'ok' ? this.#match(scrape.progress, job, pod) : scrape
      this.#options.onScrape(result.result)
      this.#remember(job, result)
      if (result.result !== 'ok') return
      const { attempt, step } = result.progress
      this.#heard.set(job.metadata.uid ?? '', { attempt, step, at: clock.now() })
      await this.#write(job, result.progress)
    } catch (error) {
      // Changed meanwhile: the next report is due soon.
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

  /** The address may by now belong to another pod. */
  #match(progress: Progress, job: Job, pod: Pod): Scrape {
    const expected = { uid: job.metadata.uid, attempt: pod.metadata.labels?.[LABEL.attempt] }
    if (progress.jobUid === expected.uid && String(progress.attempt) === expected.attempt && progress.rank === 0)
      return { result: 'ok', progress }
    return {
      result: 'foreign',
      problem: `answers for job ${progress.jobUid}, attempt ${progress.attempt}, rank ${progress.rank}`,
    }
  }

  /** Over the job as it is now: while rank 0 was asked it may have been suspended, or made again. */
  async #write(asked: Job, progress: Progress): Promise<void> {
    const job = this.#options.job(keyOf(asked))
    if (job === undefined || job.metadata.uid !== asked.metadata.uid || !this.#settingsOf(job).running) return
    const reading = readSpec(job)
    if ('invalid' in reading) return
    const status = readStatus(job)
    const replicas = sizeOf(reading.spec, { status, created: true })
    const ranks = worldSizeOf({ workers: { ...reading.spec.workers, replicas } })
    const report = reportOf(progress, { status, ranks, now: clock.now() })
    const { progress: step, throughput, lastCheckpoint } = status
    const known = { progress: step, ...(throughput && { throughput }), ...(lastCheckpoint && { lastCheckpoint }) }
    if (!same(report, known)) await this.#options.report(job, report)
  }

  /** A problem is logged once, not each time. */
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

  #settingsOf(job: Job): Settings {
    const known = this.#settings.get(job)
    if (known !== undefined) return known
    const reading = readSpec(job)
    const settings =
      'invalid' in reading
        ? { running: false, intervalMilliseconds: 0 }
        : {
            running:
              ['Running', 'Stalled'].includes(readStatus(job).state ?? '') &&
              job.metadata.deletionTimestamp === undefined,
            intervalMilliseconds: reading.spec.reporting.intervalSeconds * 1000,
          }
    this.#settings.set(job, settings)
    return settings
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

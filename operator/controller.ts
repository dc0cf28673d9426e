// The loop: whatever changes puts a job's key into the queue; for each key observe, plan, apply.

import { clock } from './api/clock.ts'
import { messageOf, Stalled, Waiting } from './api/errors.ts'
import { Applier } from './apply.ts'
import { abandoned } from './objects/providers.ts'
import { Caches } from './observe.ts'
import type { Options } from './options.ts'
import { describe, plan, podsFirst } from './plan/plan.ts'
import { managedElsewhere, readStatus } from './plan/view.ts'
import { Scraper } from './progress.ts'
import { Queue } from './queue.ts'
import { type Logger, metrics, type ReconcileResult, type Snapshot } from './telemetry.ts'

/** Pods of one gang change together; what the kubelets report within this time is looked at once. */
const GATHER_MILLISECONDS = 50
/** Quota and admission are not watched: a refused job is looked at again without a sign. */
const STALLED_MILLISECONDS = 15_000

export class Controller {
  readonly #options: Options
  readonly #log: Logger
  readonly #queue = new Queue({ ...metrics.queue, isUrgent: key => this.#caches.isUrgent(key) })
  readonly #caches: Caches
  readonly #applier: Applier
  readonly #scraper: Scraper
  #leadsSince = 0

  /** `writeBudget`: milliseconds for which this replica may write. */
  constructor(options: Options, log: Logger, writeBudget: () => number) {
    this.#options = options
    this.#log = log
    const { kubeconfig, identity, workerImage, gpuWorkerImage } = options
    const scheduler = { provider: options.schedulingProvider, name: options.schedulerName }
    this.#caches = new Caches({
      kubeconfig,
      settings: { workerImage, gpuWorkerImage, scheduler },
      namespaces: options.watchNamespaces,
      idleMilliseconds: options.watchIdleSeconds * 1000,
      onChange: (job, kind) => (kind === 'Pod' ? this.#queue.addAfter(job, GATHER_MILLISECONDS) : this.#queue.add(job)),
      onProblem: problem => {
        metrics.watchProblem()
        log.warn({ problem }, 'watch is opened again')
      },
    })
    const pace = { perSecond: options.apiWritesPerSecond, atOnce: options.apiWritesAtOnce }
    const limits = { pace, budget: writeBudget }
    const yields = () => this.#queue.hurries
    this.#applier = new Applier({ kubeconfig, caches: this.#caches, log, identity, limits, yields })
    this.#scraper = new Scraper({
      jobs: () => this.#caches.jobs(),
      job: key => this.#caches.observe(key)?.job,
      pod: (namespace, name) => this.#caches.pod(namespace, name),
      report: async (job, report) => this.#applier.report(job, report),
      onScrape: metrics.scraped,
      log,
      port: options.progressPort,
      yields,
    })
  }

  /** What has to be installed first, in words; undefined: nothing. */
  async missing(): Promise<string | undefined> {
    return this.#caches.missing()
  }

  /** Fills the caches and keeps them up to date; acts on nothing. */
  async watch(signal: AbortSignal): Promise<void> {
    await this.#caches.run(signal)
  }

  get synced(): boolean {
    return this.#caches.synced
  }

  /** Acts, until `signal`; resolves when what was under way is done. Keys gathered before are worked on first. */
  async lead(signal: AbortSignal): Promise<void> {
    const { concurrency } = this.#options
    this.#leadsSince = clock.now()
    metrics.concurrency(concurrency)
    signal.addEventListener('abort', () => this.#queue.close(), { once: true })
    await Promise.all([this.#queue.run(concurrency, async key => this.#reconcile(key)), this.#scraper.run(signal)])
    await this.#applier.settled()
  }

  snapshot(): Snapshot {
    const jobs = [...this.#caches.jobs()]
      .filter(job => !managedElsewhere(job))
      .map(job => {
        const { state = 'Pending', throughput } = readStatus(job)
        const tokensPerSecond = state === 'Running' ? (throughput?.tokensPerSecond ?? 0) : 0
        return { namespace: job.metadata.namespace ?? '', state, tokensPerSecond }
      })
    return { depth: this.#queue.depth, underWay: this.#queue.underWay, jobs }
  }

  async #reconcile(key: string): Promise<void> {
    const start = performance.now()
    metrics.reconcileStarted()
    const result = await this.#once(key).catch((error: unknown) => this.#failed(key, error))
    metrics.reconciled(result, performance.now() - start)
  }

  async #once(key: string): Promise<ReconcileResult> {
    const { pods, groups } = this.#caches.parts(key)
    await this.#applier.release(abandoned(pods, groups))
    const seen = this.#caches.observe(key)
    if (seen !== undefined) {
      const now = clock.now()
      const heard = this.#scraper.heard(seen.job.metadata.uid ?? '')
      const observed = { ...seen, heard, watchedSince: this.#leadsSince }
      const wanted = plan(observed, now)
      if (this.#log.isLevelEnabled('debug')) this.#log.debug({ job: key, plan: describe(wanted) }, 'plan')
      const part = this.#queue.hurries ? podsFirst(wanted) : undefined
      await this.#applier.apply(observed.job, part ?? wanted)
      if (part !== undefined) {
        this.#queue.add(key)
        return 'requeue'
      }
      if (wanted.status !== undefined)
        this.#log.info({ job: key, state: wanted.status.state, reason: wanted.status.reason }, 'status')
      if (wanted.requeueAt !== undefined) {
        this.#queue.forget(key)
        this.#queue.addAfter(key, wanted.requeueAt - clock.now())
        return 'requeue_after'
      }
    }
    this.#queue.forget(key)
    return 'success'
  }

  #failed(key: string, error: unknown): ReconcileResult {
    if (error instanceof Waiting) {
      this.#log.debug({ job: key, waiting: error.message }, 'waiting')
      this.#queue.addAfter(key, error.delayMilliseconds)
      return 'requeue_after'
    }
    if (error instanceof Stalled) {
      this.#log.warn({ job: key, reason: error.reason, error: error.message }, 'refused by the API server')
      if (error.mayPass) this.#queue.retry(key)
      else this.#queue.addAfter(key, STALLED_MILLISECONDS)
      return 'requeue_after'
    }
    const delayMilliseconds = Math.round(this.#queue.retry(key))
    this.#log.error({ job: key, error: messageOf(error), delayMilliseconds }, 'reconcile failed; it is tried again')
    return 'error'
  }
}

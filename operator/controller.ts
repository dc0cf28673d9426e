// The control loop. Every change puts the key of a job into the queue. For each key the operator
// observes, plans and applies.

import { clock } from './api/clock.ts'
import { messageOf, Stalled, Waiting } from './api/errors.ts'
import { Applier } from './apply.ts'
import { Caches } from './observe.ts'
import type { Options } from './options.ts'
import { describe, type Plan, plan, podsFirst } from './plan/plan.ts'
import { type Leftovers, managedElsewhere, type Observed, readStatus } from './plan/view.ts'
import { Scraper } from './progress.ts'
import { Queue } from './queue.ts'
import { type Logger, metrics, type ReconcileResult, type Snapshot } from './telemetry.ts'

/** Pods of one gang change together. Their changes within this time are looked at once. */
const GATHER_MILLISECONDS = 50
/** A refused job is tried again after this time, because quotas and admission are not watched. */
const STALLED_MILLISECONDS = 15_000

export class Controller {
  readonly #options: Options
  readonly #log: Logger
  readonly #queue = new Queue({ ...metrics.queue, isUrgent: key => this.#caches.isUrgent(key) })
  readonly #caches: Caches
  readonly #applier: Applier
  readonly #scraper: Scraper
  #leadsSince = 0

  /** `writeBudget` returns the milliseconds for which this replica may write. */
  constructor(options: Options, log: Logger, writeBudget: () => number) {
    this.#options = options
    this.#log = log
    const { kubeconfig, identity, workerImage, gpuWorkerImage, restrictTemplates } = options
    const reportReaders = options.networkPolicies ? options.reportReaders : undefined
    const scheduler = { provider: options.schedulingProvider, name: options.schedulerName }
    this.#caches = new Caches({
      kubeconfig,
      settings: { workerImage, gpuWorkerImage, scheduler, restrictTemplates, reportReaders },
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
    const shouldYield = () => this.#queue.isBusy
    this.#applier = new Applier({ kubeconfig, caches: this.#caches, log, identity, limits, shouldYield })
    this.#scraper = new Scraper({
      jobs: () => this.#caches.jobs(),
      job: key => this.#caches.job(key),
      pod: (namespace, name) => this.#caches.pod(namespace, name),
      report: async (job, report) => this.#applier.report(job, report),
      onScrape: metrics.scraped,
      log,
      port: options.progressPort,
      shouldYield,
    })
  }

  /** Says what has to be installed first, undefined if nothing is missing. */
  async missing(): Promise<string | undefined> {
    return this.#caches.missing()
  }

  /** Fills the caches and keeps them up to date. Does not act on anything. */
  async watch(signal: AbortSignal): Promise<void> {
    await this.#caches.run(signal)
  }

  get synced(): boolean {
    return this.#caches.synced
  }

  /**
   * Acts until `signal` fires, and resolves when the work under way is done. Keys that were added
   * before are worked on first.
   */
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
    const observed = this.#observe(key)
    const wanted = plan(observed, clock.now())
    if (this.#log.isLevelEnabled('debug')) this.#log.debug({ job: key, plan: describe(wanted) }, 'plan')
    const part = this.#queue.isBusy ? podsFirst(wanted) : undefined
    await this.#applier.apply(observed.job, part ?? wanted)
    return part === undefined ? this.#done(key, wanted) : this.#continue(key)
  }

  #observe(key: string): Observed | Leftovers {
    const seen = this.#caches.observe(key)
    if (seen.job === undefined) return seen
    const lastAnswer = this.#scraper.lastAnswer(seen.job.metadata.uid ?? '')
    return { ...seen, lastAnswer, watchedSince: this.#leadsSince }
  }

  /** The pods are created. The rest of the plan follows after other urgent keys. */
  #continue(key: string): ReconcileResult {
    this.#queue.add(key)
    return 'requeue'
  }

  #done(key: string, { status, requeueAt }: Plan): ReconcileResult {
    if (status !== undefined) this.#log.info({ job: key, state: status.state, reason: status.reason }, 'status')
    this.#queue.forget(key)
    if (requeueAt === undefined) return 'success'
    this.#queue.addAfter(key, requeueAt - clock.now())
    return 'requeue_after'
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
    this.#log.error({ job: key, error: messageOf(error), delayMilliseconds }, 'reconcile failed, will be tried again')
    return 'error'
  }
}

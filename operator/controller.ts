// The control loop. Every change puts the key of a job into the queue. For each key the operator
// observes, plans and applies.

import { clock } from './api/clock.ts'
import { messageOf, Stalled, Waiting } from './api/errors.ts'
import { Applier } from './apply.ts'
import { confirmed, type Look } from './confirm.ts'
import { isOver } from './objects/pod-state.ts'
import { type Job, namespaceOf, type Pod } from './objects/wire.ts'
import { Caches, type Change } from './observe.ts'
import type { Options } from './options.ts'
import { describe, hasCreates, type Plan, plan, podsFirst, withoutCreates } from './plan/plan.ts'
import { isRefused } from './plan/refusal.ts'
import { isWaitedFor } from './plan/report.ts'
import { type Leftovers, managedElsewhere, type Observed, readStatus } from './plan/view.ts'
import { PodWordsReader } from './pod-words.ts'
import { Scraper } from './progress.ts'
import { Queue } from './queue.ts'
import { Refusals } from './refusals.ts'
import { type Logger, metrics, type ReconcileResult, type Snapshot } from './telemetry.ts'

/** Pods of one gang change together. Their changes within this time are looked at once. */
const GATHER_MILLISECONDS = 50

/** Nothing is created, so nothing is refused. */
const READILY = { oneFirst: false, patience: 0 }

export class Controller {
  readonly #options: Options
  readonly #log: Logger
  readonly #queue = new Queue({ ...metrics.queue, isUrgent: key => this.#caches.isUrgent(key) })
  readonly #caches: Caches
  readonly #applier: Applier
  readonly #scraper: Scraper
  readonly #refusals = new Refusals()
  /** The first look at what cannot be taken back, by job. */
  readonly #looks = new Map<string, Look>()
  readonly #words: PodWordsReader
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
      onChange: change => this.#changed(change),
      onProblem: problem => {
        metrics.watchProblem()
        log.warn({ problem }, 'watch is opened again')
      },
    })
    const pace = { perSecond: options.apiWritesPerSecond, atOnce: options.apiWritesAtOnce }
    const limits = { pace, budget: writeBudget }
    const shouldYield = (namespace: string) => this.#queue.isBusy(namespace)
    this.#words = new PodWordsReader({ kubeconfig, onNews: key => this.#queue.add(key), log })
    this.#applier = new Applier({ kubeconfig, caches: this.#caches, log, identity, limits, shouldYield })
    this.#scraper = new Scraper({
      jobs: () => this.#caches.jobs(),
      job: key => this.#caches.job(key),
      pod: (namespace, name) => this.#caches.pod(namespace, name),
      report: async (job, report) => this.#applier.report(job, report, !isWaitedFor(job)),
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

  #changed({ job, kind, now, before }: Change): void {
    if (kind === 'Pod') {
      if (givesBack(now, before)) this.#tryRefused(namespaceOf(job))
      this.#queue.addAfter(job, GATHER_MILLISECONDS)
      return
    }
    if (kind === 'ScMoEJob' && now === undefined) {
      this.#applier.forget(before?.metadata.uid ?? '')
      this.#refusals.forget(job)
    }
    this.#queue.add(job)
  }

  /** A pod gave back what it had, and a refused job of its namespace may get it. */
  #tryRefused(namespace: string): void {
    const { keys, milliseconds } = this.#refusals.room(namespace)
    for (const key of keys) this.#queue.addAfter(key, milliseconds)
  }

  async #reconcile(key: string): Promise<void> {
    const start = performance.now()
    metrics.reconcileStarted()
    const result = await this.#once(key).catch((error: unknown) => this.#failed(key, error))
    metrics.reconciled(result, performance.now() - start)
  }

  async #once(key: string): Promise<ReconcileResult> {
    const observed = this.#observe(key)
    const wanted = this.#confirmed(key, observed)
    if (this.#log.isLevelEnabled('debug')) this.#log.debug({ job: key, plan: describe(wanted) }, 'plan')
    const { job } = observed
    if (job === undefined || !hasCreates(wanted)) {
      this.#refusals.forget(key)
      await this.#applier.apply(job, wanted, READILY)
      return this.#done(key, wanted)
    }
    const left = this.#refusals.left(job)
    if (left === 0) return this.#create(key, job, wanted)
    await this.#applier.apply(job, withoutCreates(wanted), READILY)
    this.#queue.addAfter(key, left)
    return this.#lookAgain(key, wanted)
  }

  async #create(key: string, job: Job, wanted: Plan): Promise<ReconcileResult> {
    const { namespace = '' } = job.metadata
    const part = this.#queue.isBusy(namespace) ? podsFirst(wanted) : undefined
    const oneFirst = isRefused(job) || this.#refusals.isRefusing(namespace)
    try {
      await this.#applier.apply(job, part ?? wanted, { oneFirst, patience: this.#refusals.patience(job) })
    } catch (error) {
      if (!(error instanceof Stalled)) throw error
      this.#log.warn({ job: key, reason: error.reason, error: error.message }, 'refused by the API server')
      this.#queue.addAfter(key, this.#refusals.refused(job, error.mayPass))
      return this.#lookAgain(key, wanted)
    }
    for (const other of this.#refusals.accepted(job)) this.#queue.add(other)
    return part === undefined ? this.#done(key, wanted) : this.#continue(key)
  }

  #observe(key: string): Observed | Leftovers {
    const seen = this.#caches.observe(key)
    const podWords = this.#words.of(key, seen.pods)
    if (seen.job === undefined) return seen
    const lastAnswer = this.#scraper.lastAnswer(seen.job.metadata.uid ?? '')
    return { ...seen, lastAnswer, podWords, watchedSince: this.#leadsSince }
  }

  /** The plan, which waits for a second look where only the time asks for it. */
  #confirmed(key: string, observed: Observed | Leftovers): Plan {
    const [now, at] = [clock.now(), clock.steady]
    const wanted = plan(observed, now)
    const isAgreed = wanted.deadline === undefined || plan(observed, clock.least()).deadline === wanted.deadline
    const answer = confirmed(wanted, { before: this.#looks.get(key), at, now, isAgreed })
    if (answer.look === undefined) this.#looks.delete(key)
    else this.#looks.set(key, answer.look)
    return answer.plan
  }

  /** The pods are created. The rest of the plan follows after other urgent keys. */
  #continue(key: string): ReconcileResult {
    this.#queue.add(key)
    return 'requeue'
  }

  #done(key: string, wanted: Plan): ReconcileResult {
    const { status, requeueAt } = wanted
    if (status !== undefined) this.#log.info({ job: key, state: status.state, reason: status.reason }, 'status')
    this.#queue.forget(key)
    return requeueAt === undefined ? 'success' : this.#lookAgain(key, wanted)
  }

  #lookAgain(key: string, { requeueAt }: Plan): ReconcileResult {
    if (requeueAt !== undefined) this.#queue.addAfter(key, requeueAt - clock.now())
    return 'requeue_after'
  }

  #failed(key: string, error: unknown): ReconcileResult {
    if (error instanceof Waiting) {
      this.#log.debug({ job: key, waiting: error.message }, 'waiting')
      this.#queue.addAfter(key, error.delayMilliseconds)
      return 'requeue_after'
    }
    const delayMilliseconds = Math.round(this.#queue.retry(key))
    this.#log.error({ job: key, error: messageOf(error), delayMilliseconds }, 'reconcile failed, will be tried again')
    return 'error'
  }
}

/** Whether a pod does not count towards a quota any more. */
function givesBack(now: Pod | undefined, before: Pod | undefined): boolean {
  const counts = (pod: Pod | undefined) => pod !== undefined && !isOver(pod)
  return counts(before) && !counts(now)
}

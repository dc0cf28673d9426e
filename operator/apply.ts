// Carries a plan out: objects first, then the status, once and last; if that was written, the event is told beside the work.

import { API_VERSION, KIND, LABEL, OWNER_CONTROLLER, OWNER_PROGRESS } from '../crds/contract.ts'
import { clock } from './api/clock.ts'
import { isCode, messageOf, Stalled, Waiting } from './api/errors.ts'
import { APPLY_PATCH, Kube, METADATA_ONLY, type WriteLimits } from './api/kube.ts'
import { Events } from './events.ts'
import type { Wanted } from './objects/owned.ts'
import { type Job, type KubeObject, keyOf, kindOf, type Pod, pathOf } from './objects/wire.ts'
import type { Caches } from './observe.ts'
import type { Action } from './plan/decision.ts'
import type { Note, Plan } from './plan/plan.ts'
import type { Report } from './plan/report.ts'
import { type Controlled, refusedStatus } from './plan/status.ts'
import { isOwnedBy, readStatus } from './plan/view.ts'
import { type Logger, metrics } from './telemetry.ts'

export type ApplierOptions = {
  kubeconfig: string | undefined
  caches: Pick<Caches, 'remember'>
  log: Logger
  /** Of this replica, in events. */
  identity: string
  limits: WriteLimits
  /** Others need the API server more than an event does. */
  yields: () => boolean
}

const CONCURRENCY = 16
const OLD_POD_MILLISECONDS = 1000
const CHANGED_MILLISECONDS = 100

export class Applier {
  readonly #kube: Kube
  readonly #events: Events
  readonly #options: ApplierOptions

  constructor(options: ApplierOptions) {
    this.#options = options
    this.#kube = new Kube(options.kubeconfig, options.limits)
    const { identity, yields, log } = options
    const onLost = (job: Job, error: unknown) =>
      log.warn({ job: keyOf(job), error: messageOf(error) }, 'event not written')
    this.#events = new Events(this.#kube, { identity, yields, onLost })
  }

  /** What is told beside the work is told. */
  async settled(): Promise<void> {
    await this.#events.settled()
  }

  async apply(job: Job, plan: Plan): Promise<void> {
    try {
      await each(plan.actions, async action => this.#act(job, action))
    } catch (error) {
      if (error instanceof Stalled) await this.#refused(job, error)
      throw error
    }
    const current = plan.report === undefined ? job : await this.report(job, plan.report)
    if (plan.status !== undefined) await this.#status(current, plan.status, plan.note)
  }

  /** Writes progress, throughput and checkpoint; gives the job as it then is. */
  async report(job: Job, report: Report): Promise<Job> {
    return this.#patchStatus(job, report, OWNER_PROGRESS)
  }

  async #refused(job: Job, { reason, message }: Stalled): Promise<void> {
    const status = refusedStatus(job, { reason, message }, clock.now())
    if (status !== undefined)
      await this.#status(job, status, { type: 'Warning', reason, action: 'Create', note: message })
  }

  /** Deletes Workloads of Kueue. */
  async release(workloads: readonly KubeObject[]): Promise<void> {
    await each(workloads, async ({ metadata: { namespace, name, uid } }) => {
      const path = pathOf('Workload.kueue.x-k8s.io', namespace, name)
      const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid } }
      await this.#kube.call({ method: 'DELETE', path, body }).catch((error: unknown) => {
        if (!isCode(error, 404, 409)) throw error
      })
    })
  }

  async #act(job: Job, action: Action): Promise<void> {
    if (action.kind === 'deleteJob') return this.#deleteJob(job)
    if (action.kind === 'delete') return this.#delete(action.pod, action.force)
    return action.kind === 'create' ? this.#create(job, action.object) : this.#repair(action.object)
  }

  async #create(job: Job, object: Wanted): Promise<void> {
    const kind = kindOf(object)
    const { namespace, name } = object.metadata
    // Nobody would read a warning about unknown fields, and to look for them costs the server a second reading.
    const query = { fieldManager: OWNER_CONTROLLER, fieldValidation: 'Ignore' }
    try {
      const path = pathOf(kind, namespace)
      const request = { method: 'POST', path, query, body: object, accept: METADATA_ONLY } as const
      const { metadata } = await this.#kube.call<KubeObject>(request)
      this.#options.caches.remember(kind, { ...object, metadata })
    } catch (error) {
      if (isCode(error, 409) && error.reason === 'AlreadyExists') return this.#adopt(job, object)
      // Not a missing namespace, in which there would be no job either.
      if (isCode(error, 404) && !error.message.includes('namespaces'))
        throw new Stalled('SchedulerMissing', unknownKind(object), { cause: error })
      if (isCode(error, 400, 403, 409, 413, 422))
        throw new Stalled('CreateRefused', `${kind} ${name}: ${messageOf(error)}`, { cause: error })
      // An admission webhook that does not answer looks like this, and may do so for days.
      if (isCode(error, 500))
        throw new Stalled('CreateFailed', `${kind} ${name}: ${messageOf(error)}`, { cause: error, mayPass: true })
      throw error
    }
  }

  /** It exists already: made by us before a crash, left by an earlier attempt or job, or somebody else's. */
  async #adopt(job: Job, wanted: Wanted): Promise<void> {
    const kind = kindOf(wanted)
    const { namespace, name, labels } = wanted.metadata
    const found = await this.#kube.call<KubeObject>({ method: 'GET', path: pathOf(kind, namespace, name) })
    this.#options.caches.remember(kind, found)
    const stopping = found.metadata.deletionTimestamp !== undefined
    const current =
      isOwnedBy(found, job.metadata.uid ?? '') && found.metadata.labels?.[LABEL.attempt] === labels?.[LABEL.attempt]
    if (current && !stopping) return
    if (stopping || found.metadata.labels?.[LABEL.jobName] === job.metadata.name)
      throw new Waiting(`${kind} ${name} of an earlier attempt or job is still there`, OLD_POD_MILLISECONDS)
    throw new Stalled(
      'NameTaken',
      `${kind} ${name} exists and is not this job's: delete it, or create the job under another name`,
    )
  }

  async #repair(object: Wanted): Promise<void> {
    const kind = kindOf(object)
    const { namespace, name } = object.metadata
    const query = { fieldManager: OWNER_CONTROLLER, force: true }
    const path = pathOf(kind, namespace, name)
    const patched = await this.#kube.call<KubeObject>({
      method: 'PATCH',
      path,
      query,
      body: object,
      contentType: APPLY_PATCH,
    })
    this.#options.caches.remember(kind, patched)
  }

  /** Only this very pod: one that was made since under its name is spared by the uid. */
  async #delete({ metadata: { namespace, name, uid } }: Pod, force = false): Promise<void> {
    try {
      const now = force ? { gracePeriodSeconds: 0 } : {}
      const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid }, ...now }
      const answer = await this.#kube.call<KubeObject>({ method: 'DELETE', path: pathOf('Pod', namespace, name), body })
      if (answer.kind === 'Pod') this.#options.caches.remember('Pod', answer)
    } catch (error) {
      if (!isCode(error, 404, 409)) throw error
    }
  }

  /** Only as it was judged: one that was changed or made again meanwhile is judged again. */
  async #deleteJob({ metadata: { namespace, name, uid, resourceVersion } }: Job): Promise<void> {
    const preconditions = { uid, resourceVersion }
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions, propagationPolicy: 'Background' }
    try {
      await this.#kube.call({ method: 'DELETE', path: pathOf('ScMoEJob', namespace, name), body })
    } catch (error) {
      if (isCode(error, 409)) throw new Waiting('the job has changed meanwhile', CHANGED_MILLISECONDS)
      if (!isCode(error, 404)) throw error
    }
  }

  async #status(job: Job, status: Controlled, note: Note | undefined): Promise<void> {
    await this.#patchStatus(job, status, OWNER_CONTROLLER)
    if ((status.restarts ?? 0) > (readStatus(job).restarts ?? 0)) metrics.restarted(job.metadata.namespace ?? '')
    if (note !== undefined) this.#events.tell(job, note)
  }

  /**
   * Only on top of the very version that was judged: a decision from an old copy, also of a job that was made again
   * under its name (the uid is not compared for a status), is refused and made anew.
   */
  async #patchStatus(job: Job, status: object, owner: string): Promise<Job> {
    const { namespace, name, resourceVersion } = job.metadata
    try {
      const written = await this.#kube.call<Job>({
        method: 'PATCH',
        path: `${pathOf('ScMoEJob', namespace, name)}/status`,
        query: { fieldManager: owner, force: true },
        body: { apiVersion: API_VERSION, kind: KIND, metadata: { name, namespace, resourceVersion }, status },
        contentType: APPLY_PATCH,
      })
      metrics.statusWritten(owner)
      this.#options.caches.remember('ScMoEJob', written)
      return written
    } catch (error) {
      if (isCode(error, 404, 409)) throw new Waiting('the job has changed meanwhile', CHANGED_MILLISECONDS)
      throw error
    }
  }
}

const unknownKind = ({ apiVersion, kind, metadata: { name } }: Wanted): string =>
  `${kind} ${name}: the API server does not serve ${apiVersion} ${kind}; install what scheduling.provider of the chart asks for, or choose another`

/** At most CONCURRENCY at a time, in order; the first error ends it once what is under way is done. */
async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values()
  const errors: unknown[] = []
  const lane = async () => {
    for (const item of rest) {
      if (errors.length > 0) return
      await work(item).catch((error: unknown) => errors.push(error))
    }
  }
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, items.length) }, lane))
  if (errors.length > 0) throw errors[0]
}

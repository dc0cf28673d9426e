// Carries out a plan: first the actions, then the status, once. After that the event is sent in the
// background.

import { randomBytes } from 'node:crypto'
import { API_VERSION, KIND, OWNER_CONTROLLER, OWNER_PROGRESS } from '../crds/contract.ts'
import { clock } from './api/clock.ts'
import { ApiError, isCode, messageOf, NoAnswer, Stalled, Waiting } from './api/errors.ts'
import { APPLY_PATCH, Kube, METADATA_ONLY, type WriteLimits } from './api/kube.ts'
import { Events } from './events.ts'
import type { Wanted } from './objects/owned.ts'
import { KUEUE_WORKLOAD } from './objects/providers.ts'
import { SECRET_KEY } from './objects/secret.ts'
import { type Job, type Kind, type KubeObject, keyOf, kindOf, pathOf } from './objects/wire.ts'
import type { Caches } from './observe.ts'
import type { Action } from './plan/decision.ts'
import { inOrder } from './plan/order.ts'
import type { Plan } from './plan/plan.ts'
import {
  isNamespaceLeaving,
  judgeExisting,
  mutation,
  type Refusal,
  recordRefusal,
  refusalOf,
  unanswered,
} from './plan/refusal.ts'
import type { Report } from './plan/report.ts'
import { readStatus } from './plan/view.ts'
import { type Logger, metrics } from './telemetry.ts'

export type ApplierOptions = {
  kubeconfig: string | undefined
  caches: Pick<Caches, 'remember' | 'job'>
  log: Logger
  /** Name of this replica, for events. */
  identity: string
  limits: WriteLimits
  /** While true, events of this namespace wait and leave the API server to more urgent requests. */
  shouldYield: (namespace: string) => boolean
}

/** How objects are created. */
export type Manner = {
  /** One pod is created before the others, because it may be refused. */
  oneFirst: boolean
  /** Milliseconds for the answer to a create. */
  patience: number
}

const CONCURRENCY = 16
const NAME_IN_USE_MILLISECONDS = 1000
const CHANGED_MILLISECONDS = 100
const LEAVING_MILLISECONDS = 5000

export class Applier {
  readonly #kube: Kube
  readonly #events: Events
  readonly #options: ApplierOptions

  constructor(options: ApplierOptions) {
    this.#options = options
    this.#kube = new Kube(options.kubeconfig, { ...options.limits, onRequest: metrics.apiRequest })
    const { identity, shouldYield, log } = options
    const onLost = (job: Job, error: unknown) =>
      log.warn({ job: keyOf(job), error: messageOf(error) }, 'event not written')
    const isThere = (job: Job) => options.caches.job(keyOf(job))?.metadata.uid === job.metadata.uid
    this.#events = new Events(this.#kube, { identity, shouldYield, onLost, isThere })
  }

  /** Resolves when all events are sent or lost. */
  async settled(): Promise<void> {
    await this.#events.settled()
  }

  /** Forgets what is remembered of a job that is gone. */
  forget(uid: string): void {
    this.#events.forget(uid)
  }

  /** Throws Stalled if the API server refuses an object. The job's status then says so. */
  async apply(job: Job | undefined, plan: Plan, { oneFirst, patience }: Manner): Promise<void> {
    try {
      for (const actions of inOrder(plan.actions, oneFirst))
        await each(actions, async action => this.#act(action, patience))
    } catch (error) {
      if (error instanceof Stalled && job !== undefined) await this.#refused(job, error)
      throw error
    }
    if (job === undefined) return
    await this.#record(plan.report === undefined ? job : await this.report(job, plan.report), plan)
  }

  /**
   * Writes progress, throughput and checkpoint. Returns the job as it is then. Nobody looks at the
   * job again for that where `quietly` is true.
   */
  async report(job: Job, report: Report, quietly = false): Promise<Job> {
    return this.#patchStatus(job, report, { owner: OWNER_PROGRESS, quietly })
  }

  async #act(action: Action, patience: number): Promise<void> {
    switch (action.kind) {
      case 'create':
        return this.#create(action.object, patience)
      case 'apply':
        return this.#repair(action.object)
      case 'delete':
        return this.#deletePod(action)
      case 'deleteWorkload':
        return this.#deleteWorkload(action)
      case 'deleteJob':
        return this.#deleteJob(action)
    }
  }

  async #create(object: Wanted, timeoutMilliseconds: number): Promise<void> {
    const kind = kindOf(object)
    // Nobody would read a warning about unknown fields, and looking for them costs the server time.
    const query = { fieldManager: OWNER_CONTROLLER, fieldValidation: 'Ignore' }
    try {
      const path = pathOf(kind, object.metadata.namespace)
      const request = {
        method: 'POST',
        path,
        query,
        body: complete(object),
        accept: METADATA_ONLY,
        timeoutMilliseconds,
      } as const
      const { metadata } = await this.#kube.call<KubeObject>(request)
      const changed = mutation(object, { metadata })
      if (changed !== undefined) {
        await this.#delete(kind, { metadata })
        throw new Stalled(changed)
      }
      this.#options.caches.remember(kind, { ...object, metadata })
    } catch (error) {
      if (error instanceof ApiError && isNamespaceLeaving(error))
        throw new Waiting('the namespace is being terminated', LEAVING_MILLISECONDS)
      if (isCode(error, 409) && error.reason === 'AlreadyExists')
        return object.kind === 'Secret' ? undefined : this.#adopt(object)
      const refusal = refusalIn(object, error)
      // Workers run without a budget, too.
      if (kind === 'PodDisruptionBudget' && refusal !== undefined)
        return this.#options.log.warn({ name: object.metadata.name, refusal: refusal.message }, 'no disruption budget')
      throw refusal === undefined ? error : new Stalled(refusal, { cause: error })
    }
  }

  /** Finds out whose the existing object of this name is. */
  async #adopt(wanted: Wanted): Promise<void> {
    const kind = kindOf(wanted)
    const { namespace, name } = wanted.metadata
    const found = await this.#kube.call<KubeObject>({ method: 'GET', path: pathOf(kind, namespace, name) })
    this.#options.caches.remember(kind, found)
    const judgement = judgeExisting(wanted, found)
    if (judgement === 'ours') return
    if (judgement === 'leaving')
      throw new Waiting(`${kind} ${name} of an earlier attempt or job is still there`, NAME_IN_USE_MILLISECONDS)
    throw new Stalled(judgement)
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

  async #deletePod({ pod, force }: Extract<Action, { kind: 'delete' }>): Promise<void> {
    const answer = await this.#delete('Pod', pod, force === true ? { gracePeriodSeconds: 0 } : {})
    if (answer?.kind === 'Pod') this.#options.caches.remember('Pod', answer)
  }

  async #deleteWorkload({ workload }: Extract<Action, { kind: 'deleteWorkload' }>): Promise<void> {
    await this.#delete(KUEUE_WORKLOAD, workload)
  }

  /**
   * Deletes this very object. Another one that was created since under its name has another uid.
   * Undefined if the object is gone already.
   */
  async #delete(kind: Kind, { metadata: { namespace, name, uid } }: KubeObject, options = {}) {
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid }, ...options }
    try {
      return await this.#kube.call<KubeObject>({ method: 'DELETE', path: pathOf(kind, namespace, name), body })
    } catch (error) {
      if (isCode(error, 404, 409)) return undefined
      throw error
    }
  }

  /** Deletes the job only in the version for which the deletion was decided. */
  async #deleteJob({ job }: Extract<Action, { kind: 'deleteJob' }>): Promise<void> {
    const { namespace, name, uid, resourceVersion } = job.metadata
    const preconditions = { uid, resourceVersion }
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions, propagationPolicy: 'Background' }
    try {
      await this.#kube.call({ method: 'DELETE', path: pathOf('ScMoEJob', namespace, name), body })
    } catch (error) {
      if (isCode(error, 409)) throw new Waiting('the job has changed meanwhile', CHANGED_MILLISECONDS)
      if (!isCode(error, 404)) throw error
    }
  }

  /** Nobody looks at the job again for this status alone: it would be tried and refused again. */
  async #refused(job: Job, refusal: Refusal): Promise<void> {
    const { status, note } = recordRefusal(job, refusal, clock.now())
    if (status === undefined) return
    await this.#patchStatus(job, status, { owner: OWNER_CONTROLLER, quietly: true })
    if (note !== undefined) this.#events.send(job, note)
  }

  async #record(job: Job, { status, note, doubt }: Pick<Plan, 'status' | 'note' | 'doubt'>): Promise<void> {
    if (status === undefined) return
    await this.#patchStatus(job, status, { owner: OWNER_CONTROLLER, quietly: false })
    if ((status.restarts ?? 0) > (readStatus(job).restarts ?? 0)) metrics.restarted(job.metadata.namespace ?? '')
    for (const each of [note, doubt]) if (each !== undefined) this.#events.send(job, each)
  }

  /**
   * Writes the status only on top of the version for which it was decided. A decision from an old
   * copy is refused and made again. The version matters because the API server does not compare the
   * uid for a status, and the job may have been created again under its name.
   */
  async #patchStatus(job: Job, status: object, { owner, quietly }: { owner: string; quietly: boolean }): Promise<Job> {
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
      this.#options.caches.remember('ScMoEJob', written, quietly)
      return written
    } catch (error) {
      if (isCode(error, 404, 409)) throw new Waiting('the job has changed meanwhile', CHANGED_MILLISECONDS)
      throw error
    }
  }
}

function refusalIn(object: Wanted, error: unknown): Refusal | undefined {
  if (error instanceof NoAnswer) return unanswered(object, error.message)
  return error instanceof ApiError ? refusalOf(object, error) : undefined
}

/** Adds its random text to a Secret. The first one that the API server takes counts. */
const complete = (object: Wanted): object =>
  object.kind === 'Secret' ? { ...object, stringData: { [SECRET_KEY]: randomBytes(32).toString('hex') } } : object

/**
 * Does the work in order, at most CONCURRENCY items at a time. After a first error nothing new is
 * begun. Once the items under way are done, the refusal of the first item in order is thrown, which
 * is the same one each time, or else the first error.
 */
async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.entries()
  const errors: { place: number; error: unknown }[] = []
  const lane = async () => {
    for (const [place, item] of rest) {
      if (errors.length > 0) return
      await work(item).catch((error: unknown) => errors.push({ place, error }))
    }
  }
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, items.length) }, lane))
  const refusals = errors.filter(({ error }) => error instanceof Stalled).toSorted((a, b) => a.place - b.place)
  const [first] = [...refusals, ...errors]
  if (first !== undefined) throw first.error
}

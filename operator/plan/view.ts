// One job with its pods, sorted out: which pods count, how many attempts there were, what the last status said. Pure.

import { CONTROLLER, LABEL } from '../../crds/contract.ts'
import { ranksPerWorker, worldSizeOf } from '../../crds/ranks.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { ScMoEJobStatus, type State, type WorkersStatus } from '../../crds/status.ts'
import type { Scheduler } from '../objects/providers.ts'
import { type Job, type KubeObject, type Pod, podName } from '../objects/wire.ts'
import { hasSucceeded, isReady, outcomeOf } from './gang.ts'

/** What rank 0 last answered, and when, in milliseconds since 1970 by the API server's clock. */
export type Heard = { attempt: number; step: number; at: number }

/** What `observe` read from the caches. */
export type Observed = {
  job: Job
  /** All pods that carry this job's name, also those of an earlier job of that name. */
  pods: readonly Pod[]
  /** Those of them that are gone, as they were last seen, until another takes the name. */
  ghosts?: readonly Pod[] | undefined
  service: KubeObject | undefined
  budget: KubeObject | undefined
  /** What the scheduling provider keeps of this job's gangs. */
  groups?: readonly KubeObject[]
  heard?: Heard | undefined
  /** Since when this operator asks for progress, milliseconds since 1970. */
  watchedSince: number
} & Settings

/** What the operator was started with. */
export type Settings = {
  /** Images of workers whose template names none: without GPUs and with. */
  workerImage: string
  gpuWorkerImage: string
  scheduler: Scheduler
}

export type View = Observed & {
  now: number
  name: string
  namespace: string
  uid: string
  /** workers.replicas is how many workers the present attempt has: fewer than were asked for where there is no room for all. */
  spec: ScMoEJobSpec
  /** Workers that the job asks for. */
  wanted: number
  status: ScMoEJobStatus
  /** The attempt whose pods exist or are the next to be created, from 1. */
  attempt: number
  /** It is on record that all pods of this attempt were created: from here on a missing one was deleted. */
  created: boolean
  /** Pods of this attempt by worker. */
  gang: readonly (Pod | undefined)[]
  /** This job's pods of other attempts and those of others that have its pods' names: they have to go before this attempt can start. */
  others: readonly Pod[]
}

/** What the job says about itself; the text says which field is wrong where the spec is not usable. */
export type Reading = { spec: ScMoEJobSpec } | { invalid: string }

export function readSpec(job: Job): Reading {
  return once(readings, job.spec, () => {
    const parsed = ScMoEJobSpec.safeParse(job.spec)
    if (parsed.success) return { spec: parsed.data }
    const issue = parsed.error.issues[0]
    return {
      invalid: `spec.${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not usable'}; correct it or create the job again`,
    }
  })
}

/** Field by field: one that another version wrote differently is dropped, the others still count. */
export function readStatus(job: Job): ScMoEJobStatus {
  return once(statuses, job.status, () => {
    const source = typeof job.status === 'object' && job.status !== null ? Object.entries(job.status) : []
    const shape = ScMoEJobStatus.shape as Record<string, { safeParse(value: unknown): { success: boolean } }>
    const usable = source.filter(([key, value]) => Object.hasOwn(shape, key) && shape[key]?.safeParse(value).success)
    return ScMoEJobStatus.parse(Object.fromEntries(usable))
  })
}

/** The caches freeze what they hold, and the same job is looked at many times. */
function once<T>(known: WeakMap<object, T>, source: unknown, read: () => T): T {
  if (typeof source !== 'object' || source === null || !Object.isFrozen(source)) return read()
  const value = known.get(source) ?? read()
  known.set(source, value)
  return value
}
const readings = new WeakMap<object, Reading>()
const statuses = new WeakMap<object, ScMoEJobStatus>()

export function viewOf(observed: Observed, written: ScMoEJobSpec, now: number): View {
  const { name, namespace = '', uid = '' } = observed.job.metadata
  const status = readStatus(observed.job)
  const attempt = status.attempt ?? 1
  const created = isLive(status.state) && status.nextRestartTime === undefined
  const size = sizeOf(written, { status, created })
  const spec = { ...written, workers: { ...written.workers, replicas: size } }
  const ranks = worldSizeOf(spec)
  const gang = Array.from<Pod | undefined>({ length: size }).fill(undefined)
  const others: Pod[] = []
  for (const pod of observed.pods) {
    const labels = pod.metadata.labels ?? {}
    const worker = Number(labels[LABEL.rank]) / ranksPerWorker(spec)
    const isCurrent = labels[LABEL.attempt] === String(attempt) && Number(labels[LABEL.worldSize] ?? ranks) === ranks
    if (isOwnedBy(pod, uid) && isCurrent && Number.isInteger(worker) && worker < size) gang[worker] = pod
    else if (isOwnedBy(pod, uid) || gang.some((_, each) => pod.metadata.name === podName(name, each))) others.push(pod)
  }
  const wanted = written.workers.replicas
  return { ...observed, now, name, namespace, uid, spec, wanted, status, attempt, created, gang, others }
}

/** Workers of the present attempt: those on record, of a gang that may have fewer than were asked for. */
export function sizeOf({ workers }: ScMoEJobSpec, seen: { status: ScMoEJobStatus; created: boolean }): number {
  const recorded = seen.status.workers?.desired ?? 0
  if (workers.minReplicas === undefined || recorded === 0) return workers.replicas
  return seen.created ? recorded : Math.min(recorded, workers.replicas)
}

/** The gang has pods, or is about to get them. */
export const isLive = (state: State | undefined): boolean =>
  state === 'Queued' || state === 'Starting' || state === 'Running' || state === 'Stalled'

export const isOwnedBy = (pod: KubeObject, uid: string): boolean =>
  pod.metadata.labels?.[LABEL.jobUid] === uid &&
  (pod.metadata.ownerReferences?.some(owner => owner.uid === uid) ?? false)

export function countWorkers(view: View, desired: number): WorkersStatus {
  const outcomes = view.gang.map(pod => outcomeOf(pod))
  const number = (outcome: string) => outcomes.filter(each => each === outcome).length
  return {
    desired,
    ready: view.gang.filter(isReady).length,
    active: number('active'),
    succeeded: view.gang.filter((_, rank) => hasSucceeded(rank, view)).length,
    failed: number('failed'),
    selector: `${LABEL.jobUid}=${view.uid}`,
  }
}

/** Read without the schema, so that a job of another controller may have fields that are not known here. */
export function managedElsewhere({ spec }: Job): boolean {
  const manager = typeof spec === 'object' && spec !== null && 'managedBy' in spec ? spec.managedBy : undefined
  return manager !== undefined && manager !== CONTROLLER
}

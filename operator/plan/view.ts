// One job with its pods: which of them belong to the present attempt, and what the last status
// said.
//
// How an attempt lives
//
// A job runs in attempts, numbered from 1. `status.attempt` is the attempt whose pods exist or are
// the next to be created. Every pod has the number of its attempt as a label. The names of the pods
// are the same in every attempt, so all pods of earlier attempts have to be gone before the first
// pod of a new one can be created.
//
// Creation. The operator creates the pods, and then a status with a live state (Queued, Starting,
// Running, Stalled) and no `nextRestartTime` records that all of them were created. This is the
// `created` of a View. Before that, a missing pod still has to be created: the operator may have
// stopped half-way. After that, a pod that is missing or told to stop was deleted by somebody else,
// which is a failure of the attempt.
//
// Pods that are gone. A pod may end and be deleted before the operator looks at it again. The
// caches keep the last known state of a deleted pod (`gonePods`) until another pod takes its name.
// From that state the operator learns how the worker ended.
//
// The end. A failure, a suspension or a new size ends the attempt: the status gets the next attempt
// number, together with the failure if there was one. The pods of a failed gang, which are the
// evidence, are deleted only when that status is observed. They then belong to an earlier attempt.
//
// Probes. An elastic gang that runs with fewer workers than the job asks for creates pods for the
// missing workers, because only the scheduler knows whether there is room for them. These probes
// carry the number of the next attempt and the rank count of the larger gang. They are never part
// of the gang that runs. If they find room, the attempt number grows by two, so that the probes
// belong to an earlier attempt, too, and are deleted with the pods of the smaller gang. If the gang
// fails before that, the rank count tells the probes from the pods of the next attempt.

import { CONTROLLER, LABEL } from '../../crds/contract.ts'
import { ranksPerWorker, worldSizeOf } from '../../crds/ranks.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { ScMoEJobStatus, type State } from '../../crds/status.ts'
import type { ReportReaders } from '../objects/network-policy.ts'
import { isOwnedBy } from '../objects/owned.ts'
import type { PodWords } from '../objects/pod-words.ts'
import type { Scheduler } from '../objects/providers.ts'
import { type Job, type KubeObject, type Pod, podName } from '../objects/wire.ts'

/** The last answer of rank 0. `at` is in milliseconds since 1970, by the API server's clock. */
export type LastAnswer = { attempt: number; step: number; at: number }

/** Everything that the operator knows of one job. */
export type Observed = {
  job: Job
  /** All pods labelled with this job's name, including those of an earlier job of that name. */
  pods: readonly Pod[]
  /** The last known state of pods that are gone, until another pod takes the name. */
  gonePods?: readonly Pod[] | undefined
  service: KubeObject | undefined
  budget: KubeObject | undefined
  networkPolicy?: KubeObject | undefined
  /** The scheduling provider's objects for this job's gangs. */
  groups?: readonly KubeObject[]
  lastAnswer?: LastAnswer | undefined
  podWords?: PodWords | undefined
  /** Since when this operator asks for progress, in milliseconds since 1970. */
  watchedSince: number
} & Settings

/** The objects that are left of a job that is gone. */
export type Leftovers = { job: undefined; pods: readonly Pod[]; groups: readonly KubeObject[] }

/** The operator's own settings that a plan depends on. */
export type Settings = {
  /** Image of workers whose template names none. */
  workerImage: string
  /** The same for workers with GPUs. */
  gpuWorkerImage: string
  scheduler: Scheduler
  /** Each job gets a NetworkPolicy for these. If undefined, jobs get none. */
  reportReaders?: ReportReaders | undefined
  /** Templates that ask for more than a pod of their own are refused. */
  restrictTemplates?: boolean | undefined
}

export type View = Observed & {
  now: number
  name: string
  namespace: string
  uid: string
  /**
   * The job's spec, with `workers.replicas` as the number of workers of the present attempt. An
   * elastic job may run with fewer workers than it asks for.
   */
  spec: ScMoEJobSpec
  /** Number of workers that the job asks for. */
  wanted: number
  status: ScMoEJobStatus
  /** The attempt whose pods exist or are the next to be created. */
  attempt: number
  /** The status says that all pods of this attempt were created. */
  created: boolean
  /** Pods of this attempt, by worker. */
  gang: readonly (Pod | undefined)[]
  /** Pods of the job's other attempts, and foreign pods that have the names of its pods. */
  others: readonly Pod[]
}

/** The job's spec, or a text that says which field is wrong. */
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

/**
 * Reads the status field by field. A field that another version of the operator wrote in another
 * form is dropped, and the others still count.
 */
export function readStatus(job: Job): ScMoEJobStatus {
  return once(statuses, job.status, () => {
    const source = typeof job.status === 'object' && job.status !== null ? Object.entries(job.status) : []
    const shape = ScMoEJobStatus.shape as Record<string, { safeParse(value: unknown): { success: boolean } }>
    const usable = source.filter(([key, value]) => Object.hasOwn(shape, key) && shape[key]?.safeParse(value).success)
    return ScMoEJobStatus.parse(Object.fromEntries(usable))
  })
}

/** Parses a frozen source only once. Objects in the caches are frozen, and are read often. */
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

/** Number of workers of the present attempt. For an elastic job the status has it on record. */
export function sizeOf({ workers }: ScMoEJobSpec, seen: { status: ScMoEJobStatus; created: boolean }): number {
  const recorded = seen.status.workers?.desired ?? 0
  if (workers.minReplicas === undefined || recorded === 0) return workers.replicas
  return seen.created ? recorded : Math.min(recorded, workers.replicas)
}

/** Whether a job in this state has pods or is about to get them. */
export const isLive = (state: State | undefined): boolean =>
  state === 'Queued' || state === 'Starting' || state === 'Running' || state === 'Stalled'

/** Whether all workers of the present attempt were ready together at some time. */
export const hasRun = ({ status: { state } }: { status: ScMoEJobStatus }): boolean =>
  state === 'Running' || state === 'Stalled'

/** Read without the schema, because a job of another controller may have unknown fields. */
export function managedElsewhere({ spec }: Job): boolean {
  const manager = typeof spec === 'object' && spec !== null && 'managedBy' in spec ? spec.managedBy : undefined
  return manager !== undefined && manager !== CONTROLLER
}

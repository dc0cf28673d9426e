// Copies of all collections that the operator watches. Decisions are made from these copies alone.

import { LABEL } from '../crds/contract.ts'
import { isCode } from './api/errors.ts'
import { Kube } from './api/kube.ts'
import { Reflector } from './api/reflector.ts'
import { groupKind, jobOfGroup, KUEUE_WORKLOAD } from './objects/providers.ts'
import {
  type ContainerStatus,
  type GroupKind,
  type InitContainer,
  isGroup,
  type Job,
  type Kind,
  type KubeObject,
  keyOf,
  type Pod,
  pathOf,
} from './objects/wire.ts'
import { isUrgent } from './plan/urgency.ts'
import type { Leftovers, Observed, Settings } from './plan/view.ts'
import { metrics } from './telemetry.ts'

/** Something that belongs to a job (`namespace/name`) has changed, or the job itself. */
export type Change = { job: string; kind: Kind; now: KubeObject | undefined; before: KubeObject | undefined }

export type CacheOptions = {
  kubeconfig: string | undefined
  /** If empty, all namespaces are watched. */
  namespaces: readonly string[]
  idleMilliseconds: number
  settings: Settings
  onChange: (change: Change) => void
  onProblem: (problem: string) => void
}

type Objects = { [K in Kind]: K extends 'ScMoEJob' ? Job : K extends 'Pod' ? Pod : KubeObject }
type Trim<K extends Kind> = (object: Objects[K], before: Objects[K] | undefined) => Objects[K]
/** Missing: Secrets, groups of other scheduling providers, and NetworkPolicies if jobs get none. */
type Reflectors = { [K in Kind]?: Reflector<Objects[K]>[] }

/** Objects that belong to a job have this label. Jobs are all watched. */
const OWNED = { labelSelector: LABEL.jobUid }

export class Caches {
  readonly #kube: Kube
  readonly #reflectors: Reflectors
  /** Pods by the job whose name they have as a label. */
  readonly #pods = new Index<Pod>()
  /** The last known state of pods that are gone. */
  readonly #gonePods = new Index<Pod>()
  readonly #groups = new Index<KubeObject>()
  readonly #options: CacheOptions
  /** A change that comes now is one that nobody has to look at. */
  #isQuiet = false

  constructor(options: CacheOptions) {
    this.#options = options
    const kube = new Kube(options.kubeconfig, { onRequest: metrics.apiRequest })
    this.#kube = kube
    const namespaces = options.namespaces.length === 0 ? [undefined] : options.namespaces
    const reflect = <K extends Kind>(kind: K, extra: { labelSelector?: string; trim: Trim<K> }) =>
      namespaces.map(
        namespace =>
          new Reflector<Objects[K]>({
            kube,
            path: pathOf(kind, namespace),
            ...extra,
            idleMilliseconds: options.idleMilliseconds,
            onProblem: options.onProblem,
            onChange: (now, before) => this.#changed(kind, now, before),
          }),
      )
    const group = groupKind(options.settings.scheduler)
    this.#reflectors = {
      ...(group === undefined ? {} : { [group]: reflect(group, groupOptions(group)) }),
      ...(options.settings.reportReaders === undefined
        ? {}
        : { NetworkPolicy: reflect('NetworkPolicy', { ...OWNED, trim: trimOwned }) }),
      ScMoEJob: reflect('ScMoEJob', { trim: trimJob }),
      Pod: reflect('Pod', { ...OWNED, trim: trimPod }),
      Service: reflect('Service', { ...OWNED, trim: trimOwned }),
      PodDisruptionBudget: reflect('PodDisruptionBudget', { ...OWNED, trim: trimOwned }),
    }
  }

  /**
   * Says what is wrong if the API server does not serve the kind that the scheduling provider
   * needs. The caches would never be filled. Undefined if nothing is wrong.
   */
  async missing(): Promise<string | undefined> {
    const { provider } = this.#options.settings.scheduler
    const kind = groupKind({ provider })
    if (kind === undefined) return undefined
    const path = pathOf(kind, this.#options.namespaces[0])
    return this.#kube.call({ method: 'GET', path, query: { limit: 1 } }).then(
      () => undefined,
      (error: unknown) =>
        isCode(error, 404)
          ? `the scheduling provider is ${provider}, but the API server does not serve ${pathOf(kind)}: install the scheduler, or choose another provider`
          : undefined,
    )
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all().map(async reflector => reflector.run(signal)))
  }

  get synced(): boolean {
    return this.#all().every(reflector => reflector.synced)
  }

  /** A job with everything that belongs to it, or what is left of a job that is gone. */
  observe(key: string): Omit<Observed, 'lastAnswer' | 'watchedSince'> | Leftovers {
    const job = this.#get('ScMoEJob', key)
    const parts = { pods: this.#pods.of(key), groups: this.#groups.of(key) }
    if (job === undefined) return { job, ...parts }
    return {
      job,
      ...parts,
      gonePods: this.#gonePods.of(key),
      service: this.#get('Service', key),
      budget: this.#get('PodDisruptionBudget', key),
      networkPolicy: this.#get('NetworkPolicy', key),
      ...this.#options.settings,
    }
  }

  /** Number of objects that are kept. */
  get size(): { jobs: number; pods: number; gonePods: number } {
    return { jobs: [...this.jobs()].length, pods: this.#pods.size, gonePods: this.#gonePods.size }
  }

  isUrgent(key: string): boolean {
    const job = this.#get('ScMoEJob', key)
    return job !== undefined && isUrgent(job, this.#pods.of(key))
  }

  job(key: string): Job | undefined {
    return this.#get('ScMoEJob', key)
  }

  *jobs(): Generator<Job> {
    for (const reflector of this.#reflectors.ScMoEJob ?? []) yield* reflector.values()
  }

  pod(namespace: string, name: string): Pod | undefined {
    return this.#get('Pod', `${namespace}/${name}`)
  }

  /**
   * Takes the server's answer to a write of ours, so that the next decision sees it. `quietly`
   * means that no decision follows from it.
   */
  remember<K extends Kind>(kind: K, object: Objects[K], quietly = false): void {
    const { namespaces } = this.#options
    const index = namespaces.length === 0 ? 0 : namespaces.indexOf(object.metadata.namespace ?? '')
    this.#isQuiet = quietly
    this.#reflectors[kind]?.[index]?.put(object)
    this.#isQuiet = false
  }

  #all(): Pick<Reflector<KubeObject>, 'run' | 'synced'>[] {
    return Object.values(this.#reflectors).flat()
  }

  #get<K extends Kind>(kind: K, key: string): Objects[K] | undefined {
    for (const reflector of this.#reflectors[kind] ?? []) {
      const object = reflector.get(key)
      if (object !== undefined) return object
    }
    return undefined
  }

  #changed(kind: Kind, now: KubeObject | undefined, before: KubeObject | undefined): void {
    const object = now ?? before
    if (object === undefined) return
    const { namespace = '', name, labels } = object.metadata
    const jobName = kind === 'ScMoEJob' ? name : (labels?.[LABEL.jobName] ?? (isGroup(kind) ? jobOfGroup(name) : name))
    if (jobName === undefined) return
    const job = `${namespace}/${jobName}`
    if (kind === 'Pod') {
      this.#pods.put(job, keyOf(object), now)
      this.#gonePods.put(job, keyOf(object), now === undefined && this.#isOfJob(object, job) ? before : undefined)
    } else if (kind === 'ScMoEJob' && now === undefined) this.#gonePods.drop(job)
    else if (isGroup(kind)) this.#groups.put(job, keyOf(object), now)
    if (!this.#isQuiet) this.#options.onChange({ job, kind, now, before })
  }

  /** Whether the pod belongs to the job that is there. A deleted job goes before its pods. */
  #isOfJob({ metadata: { labels } }: KubeObject, job: string): boolean {
    const uid = labels?.[LABEL.jobUid]
    return uid !== undefined && this.#get('ScMoEJob', job)?.metadata.uid === uid
  }
}

/** Objects by the job to which they belong. */
class Index<T> {
  readonly #jobs = new Map<string, Map<string, T>>()

  get size(): number {
    return [...this.#jobs.values()].reduce((sum, objects) => sum + objects.size, 0)
  }

  of(job: string): T[] {
    return [...(this.#jobs.get(job)?.values() ?? [])]
  }

  put(job: string, key: string, now: T | undefined): void {
    const objects = this.#jobs.get(job) ?? new Map<string, T>()
    if (now === undefined) objects.delete(key)
    else objects.set(key, now)
    if (objects.size === 0) this.#jobs.delete(job)
    else this.#jobs.set(job, objects)
  }

  drop(job: string): void {
    this.#jobs.delete(job)
  }
}

/** Kueue creates its Workloads itself, without our label, and puts a pod template into each. */
const groupOptions = (kind: GroupKind) =>
  kind === KUEUE_WORKLOAD ? { trim: trimWorkload } : { ...OWNED, trim: trimOwned }

function trimWorkload(object: KubeObject & { status?: { conditions?: unknown } }): KubeObject {
  const { name, namespace, uid, resourceVersion } = object.metadata
  const status = { conditions: object.status?.conditions }
  return Object.assign({ metadata: { name, namespace, uid, resourceVersion } }, { status })
}

/**
 * Keeps the old spec if the generation is the same, so that there is one copy of it. Frozen objects
 * are parsed only once.
 */
function trimJob(job: Job, before: Job | undefined): Job {
  const { uid, generation } = job.metadata
  const known = before?.metadata.uid === uid && before?.metadata.generation === generation ? before : job
  return {
    ...job,
    spec: Object.freeze(known?.spec),
    status: Object.freeze(job.status),
    metadata: { ...job.metadata, managedFields: undefined },
  }
}

/** Reduces a pod from about 10 kB to 1 kB. */
function trimPod({ metadata, spec, status }: Pod): Pod {
  const {
    name,
    namespace,
    uid,
    resourceVersion,
    labels,
    ownerReferences,
    creationTimestamp,
    deletionTimestamp,
    deletionGracePeriodSeconds,
    finalizers,
  } = metadata
  const { phase, reason, message, podIP, conditions, containerStatuses, initContainerStatuses } = status ?? {}
  return {
    metadata: {
      name,
      namespace,
      uid,
      resourceVersion,
      labels,
      ownerReferences,
      creationTimestamp,
      deletionTimestamp,
      deletionGracePeriodSeconds,
      finalizers,
    },
    spec: {
      nodeName: spec?.nodeName,
      ...(spec?.initContainers === undefined ? {} : { initContainers: spec.initContainers.map(trimInit) }),
    },
    status: {
      phase,
      reason,
      message,
      podIP,
      conditions,
      containerStatuses: containerStatuses?.map(trimContainer),
      initContainerStatuses: initContainerStatuses?.map(trimContainer),
    },
  }
}

const trimInit = ({ name, restartPolicy }: InitContainer): InitContainer => ({ name, restartPolicy })
const trimContainer = ({ name, image, ready, started, state }: ContainerStatus): ContainerStatus => ({
  name,
  image,
  ready,
  started,
  state,
})

const trimOwned = (object: KubeObject): KubeObject => ({
  ...object,
  metadata: { ...object.metadata, managedFields: undefined, annotations: {} },
})

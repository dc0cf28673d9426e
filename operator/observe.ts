// The world as far as the operator knows it: copies of the collections it watches. Deciding reads only from here.

import { LABEL } from '../crds/contract.ts'
import { isCode } from './api/errors.ts'
import { Kube } from './api/kube.ts'
import { Reflector } from './api/reflector.ts'
import { groupKind, jobOfGroup } from './objects/providers.ts'
import { type GroupKind, type Job, type Kind, type KubeObject, keyOf, type Pod, pathOf } from './objects/wire.ts'
import { isUrgent } from './plan/urgency.ts'
import type { Observed, Settings } from './plan/view.ts'

export type CacheOptions = {
  kubeconfig: string | undefined
  /** Empty: all. */
  namespaces: readonly string[]
  idleMilliseconds: number
  settings: Settings
  /** Something that belongs to this job (`namespace/name`) has changed. */
  onChange: (job: string, kind: Kind) => void
  onProblem: (problem: string) => void
}

type Objects = { ScMoEJob: Job; Pod: Pod; Service: KubeObject; PodDisruptionBudget: KubeObject } & Record<
  GroupKind,
  KubeObject
>
type Trim<K extends Kind> = (object: Objects[K], before: Objects[K] | undefined) => Objects[K]
/** Of the kinds of groups only the provider's is watched. */
type Reflectors = { [K in Kind]?: Reflector<Objects[K]>[] }

/** What belongs to a job carries its labels; jobs themselves are all watched. */
const OWNED = { labelSelector: LABEL.jobUid }

export class Caches {
  readonly #kube: Kube
  readonly #reflectors: Reflectors
  /** By the job whose name they carry. */
  readonly #pods = new Index<Pod>()
  readonly #ghosts = new Index<Pod>()
  readonly #groups = new Index<KubeObject>()
  readonly #options: CacheOptions

  constructor(options: CacheOptions) {
    this.#options = options
    const kube = new Kube(options.kubeconfig)
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
      ScMoEJob: reflect('ScMoEJob', { trim: trimJob }),
      Pod: reflect('Pod', { ...OWNED, trim: trimPod }),
      Service: reflect('Service', { ...OWNED, trim: trimOwned }),
      PodDisruptionBudget: reflect('PodDisruptionBudget', { ...OWNED, trim: trimOwned }),
    }
  }

  /** What is wrong where the API server does not know the kind that the scheduling provider needs: no LIST of it would ever succeed. */
  async missing(): Promise<string | undefined> {
    const { provider } = this.#options.settings.scheduler
    const kind = groupKind({ provider })
    if (kind === undefined) return undefined
    const path = pathOf(kind, this.#options.namespaces[0])
    return this.#kube.call({ method: 'GET', path, query: { limit: 1 } }).then(
      () => undefined,
      (error: unknown) =>
        isCode(error, 404)
          ? `the scheduling provider is ${provider}, but the API server does not serve ${pathOf(kind)}: install it, or choose another provider`
          : undefined,
    )
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all().map(async reflector => reflector.run(signal)))
  }

  get synced(): boolean {
    return this.#all().every(reflector => reflector.synced)
  }

  /** Undefined: there is no such job. */
  observe(key: string): Omit<Observed, 'heard' | 'watchedSince'> | undefined {
    const job = this.#get('ScMoEJob', key)
    if (job === undefined) return undefined
    return {
      job,
      ...this.parts(key),
      ghosts: this.#ghosts.of(key),
      service: this.#get('Service', key),
      budget: this.#get('PodDisruptionBudget', key),
      ...this.#options.settings,
    }
  }

  isUrgent(key: string): boolean {
    const job = this.#get('ScMoEJob', key)
    return job !== undefined && isUrgent(job, this.#pods.of(key))
  }

  /** What there is of a job, also of one that is gone. */
  parts(key: string): { pods: Pod[]; groups: KubeObject[] } {
    return { pods: this.#pods.of(key), groups: this.#groups.of(key) }
  }

  *jobs(): Generator<Job> {
    for (const reflector of this.#reflectors.ScMoEJob ?? []) yield* reflector.values()
  }

  pod(namespace: string, name: string): Pod | undefined {
    return this.#get('Pod', `${namespace}/${name}`)
  }

  /** The server's answer to a write of ours, so that the next decision already knows it. */
  remember<K extends Kind>(kind: K, object: Objects[K]): void {
    const { namespaces } = this.#options
    const index = namespaces.length === 0 ? 0 : namespaces.indexOf(object.metadata.namespace ?? '')
    this.#reflectors[kind]?.[index]?.put(object)
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
    const of = kind === 'ScMoEJob' ? name : (labels?.[LABEL.jobName] ?? (isGroup(kind) ? jobOfGroup(name) : name))
    if (of === undefined) return
    const job = `${namespace}/${of}`
    if (kind === 'Pod') {
      this.#pods.put(job, keyOf(object), now)
      this.#ghosts.put(job, keyOf(object), now === undefined ? before : undefined)
    } else if (kind === 'ScMoEJob' && now === undefined) this.#ghosts.drop(job)
    else if (isGroup(kind)) this.#groups.put(job, keyOf(object), now)
    this.#options.onChange(job, kind)
  }
}

/** Objects by the job that they are of. */
class Index<T> {
  readonly #jobs = new Map<string, Map<string, T>>()

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

const isGroup = (kind: Kind): kind is GroupKind => kind.includes('.')

/** Kueue makes its Workloads itself, without our label and with a whole pod template in each. */
const groupOptions = (kind: GroupKind) =>
  kind === 'Workload.kueue.x-k8s.io' ? { trim: trimWorkload } : { ...OWNED, trim: trimOwned }

function trimWorkload(object: KubeObject & { status?: { conditions?: unknown } }): KubeObject {
  const { name, namespace, uid, resourceVersion } = object.metadata
  const status = { conditions: object.status?.conditions }
  return Object.assign({ metadata: { name, namespace, uid, resourceVersion } }, { status })
}

/** Keeps the spec it has where that did not change, so that it is kept, and read, once; what is frozen is read once. */
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

/** A pod is some 10 kB on the wire and 1 kB here. */
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
    },
    spec: { nodeName: spec?.nodeName },
    status: {
      phase,
      reason,
      message,
      podIP,
      conditions,
      containerStatuses: containerStatuses?.map(({ name: container, image, state }) => ({
        name: container,
        image,
        state,
      })),
      initContainerStatuses: initContainerStatuses?.map(({ name: container, image, state }) => ({
        name: container,
        image,
        state,
      })),
    },
  }
}

const trimOwned = (object: KubeObject): KubeObject => ({
  ...object,
  metadata: { ...object.metadata, managedFields: undefined, annotations: {} },
})

// The world as far as the operator knows it: copies of the collections it watches. Deciding reads only from here.

import { LABEL } from '../crds/contract.ts'
import { Kube } from './kube.ts'
import { type Job, type Kind, type KubeObject, keyOf, type Pod, pathOf } from './objects.ts'
import { Reflector } from './reflector.ts'
import type { Observed } from './view.ts'

export type CacheOptions = {
  kubeconfig: string | undefined
  /** Empty: all. */
  namespaces: readonly string[]
  idleMilliseconds: number
  workerImage: string
  /** Something that belongs to this job (`namespace/name`) has changed. */
  onChange: (job: string, kind: Kind) => void
  onProblem: (problem: string) => void
}

type Objects = { ScMoEJob: Job; Pod: Pod; Service: KubeObject; PodDisruptionBudget: KubeObject }
type Reflectors = { [K in Kind]: Reflector<Objects[K]>[] }

/** What belongs to a job carries its labels; jobs themselves are all watched. */
const OWNED = { labelSelector: LABEL.jobUid }

export class Caches {
  readonly #reflectors: Reflectors
  /** Pods by the job whose name they carry. */
  readonly #pods = new Map<string, Map<string, Pod>>()
  readonly #options: CacheOptions

  constructor(options: CacheOptions) {
    this.#options = options
    const kube = new Kube(options.kubeconfig)
    const namespaces = options.namespaces.length === 0 ? [undefined] : options.namespaces
    const reflect = <K extends Kind>(
      kind: K,
      extra: { labelSelector?: string; trim: (object: Objects[K]) => Objects[K] },
    ) =>
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
    this.#reflectors = {
      ScMoEJob: reflect('ScMoEJob', { trim: trimJob }),
      Pod: reflect('Pod', { ...OWNED, trim: trimPod }),
      Service: reflect('Service', { ...OWNED, trim: trimOwned }),
      PodDisruptionBudget: reflect('PodDisruptionBudget', { ...OWNED, trim: trimOwned }),
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all().map(async reflector => reflector.run(signal)))
  }

  get synced(): boolean {
    return this.#all().every(reflector => reflector.synced)
  }

  /** Undefined: there is no such job. */
  observe(key: string): Observed | undefined {
    const job = this.#get('ScMoEJob', key)
    if (job === undefined) return undefined
    return {
      job,
      pods: [...(this.#pods.get(key)?.values() ?? [])],
      service: this.#get('Service', key),
      budget: this.#get('PodDisruptionBudget', key),
      workerImage: this.#options.workerImage,
    }
  }

  *jobs(): Generator<Job> {
    for (const reflector of this.#reflectors.ScMoEJob) yield* reflector.values()
  }

  pod(namespace: string, name: string): Pod | undefined {
    return this.#get('Pod', `${namespace}/${name}`)
  }

  /** The server's answer to a write of ours, so that the next decision already knows it. */
  remember<K extends Kind>(kind: K, object: Objects[K]): void {
    const { namespaces } = this.#options
    const index = namespaces.length === 0 ? 0 : namespaces.indexOf(object.metadata.namespace ?? '')
    this.#reflectors[kind][index]?.put(object)
  }

  #all(): Pick<Reflector<KubeObject>, 'run' | 'synced'>[] {
    const { ScMoEJob, Pod: pods, Service, PodDisruptionBudget } = this.#reflectors
    return [...ScMoEJob, ...pods, ...Service, ...PodDisruptionBudget]
  }

  #get<K extends Kind>(kind: K, key: string): Objects[K] | undefined {
    for (const reflector of this.#reflectors[kind]) {
      const object = reflector.get(key)
      if (object !== undefined) return object
    }
    return undefined
  }

  #changed(kind: Kind, now: KubeObject | undefined, before: KubeObject | undefined): void {
    const object = now ?? before
    if (object === undefined) return
    const { namespace = '', name, labels } = object.metadata
    const job = `${namespace}/${kind === 'ScMoEJob' ? name : (labels?.[LABEL.jobName] ?? name)}`
    if (kind === 'Pod') this.#index(job, keyOf(object), now)
    this.#options.onChange(job, kind)
  }

  #index(job: string, key: string, now: Pod | undefined): void {
    const pods = this.#pods.get(job) ?? new Map<string, Pod>()
    if (now === undefined) pods.delete(key)
    else pods.set(key, now)
    if (pods.size === 0) this.#pods.delete(job)
    else this.#pods.set(job, pods)
  }
}

const trimJob = (job: Job): Job => ({ ...job, metadata: { ...job.metadata, managedFields: undefined } })

/** A pod is some 10 kB on the wire and 1 kB here. */
function trimPod({ metadata, spec, status }: Pod): Pod {
  const {
    name,
    namespace,
    uid,
    resourceVersion,
    labels,
    ownerReferences,
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

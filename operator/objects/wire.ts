// Kubernetes objects in their JSON form, in which times are strings. The types have only the fields
// that the operator reads.

import { API_VERSION, PLURAL } from '../../crds/contract.ts'

export type OwnerReference = {
  apiVersion: string
  kind: string
  name: string
  uid: string
  controller?: boolean | undefined
  blockOwnerDeletion?: boolean | undefined
}

export type Metadata = {
  name: string
  namespace?: string | undefined
  uid?: string | undefined
  resourceVersion?: string | undefined
  generation?: number | undefined
  creationTimestamp?: string | undefined
  deletionTimestamp?: string | undefined
  deletionGracePeriodSeconds?: number | undefined
  labels?: Record<string, string> | undefined
  annotations?: Record<string, string> | undefined
  finalizers?: string[] | undefined
  ownerReferences?: OwnerReference[] | undefined
  managedFields?: unknown
}

export type KubeObject = { apiVersion?: string; kind?: string; metadata: Metadata }

/** An ScMoEJob as the API server has it. `spec` and `status` are validated where they are read. */
export type Job = KubeObject & { spec?: unknown; status?: unknown }

export type ContainerStatus = {
  name: string
  image?: string | undefined
  ready?: boolean | undefined
  /** Whether the container has passed its startup probe. */
  started?: boolean | undefined
  state?:
    | {
        waiting?: { reason?: string; message?: string }
        running?: { startedAt?: string }
        terminated?: { exitCode: number; reason?: string; message?: string; finishedAt?: string }
      }
    | undefined
}

/** With restartPolicy Always it is a sidecar, which starts before the worker and ends after it. */
export type InitContainer = { name: string; restartPolicy?: string | undefined }

export type PodCondition = {
  type: string
  status: string
  reason?: string | undefined
  message?: string | undefined
  lastTransitionTime?: string | undefined
}

export type Pod = KubeObject & {
  spec?: { nodeName?: string | undefined; initContainers?: InitContainer[] | undefined } | undefined
  status?: {
    phase?: string | undefined
    reason?: string | undefined
    message?: string | undefined
    podIP?: string | undefined
    conditions?: PodCondition[] | undefined
    containerStatuses?: ContainerStatus[] | undefined
    initContainerStatuses?: ContainerStatus[] | undefined
  }
}

/** `namespace/name`. */
export function keyOf(object: KubeObject): string {
  return `${object.metadata.namespace ?? ''}/${object.metadata.name}`
}

/** The namespace in a key, empty if the key has none. */
export const namespaceOf = (key: string): string => key.slice(0, Math.max(0, key.indexOf('/')))

/** Compares two resource versions, which are decimal numbers of any length. */
export function isOlder(version: string | undefined, than: string | undefined): boolean {
  const [a, b] = [version ?? '0', than ?? '0']
  return a.length === b.length ? a < b : a.length < b.length
}

/**
 * Shortens a text to the length that the status allows for a message. Half of a surrogate pair at
 * the cut is replaced, because the API server would return it as another text.
 */
export const clip = (text: string, length = 1024): string => text.slice(0, length).toWellFormed()

/** Shortens a text to so many bytes of UTF-8, as the API server limits the note of an event. */
export function clipBytes(text: string, bytes: number): string {
  const { read } = new TextEncoder().encodeInto(text, new Uint8Array(bytes))
  return text.slice(0, read).toWellFormed()
}

/** The same in every attempt, so that the API server refuses a second pod of the same worker. */
export const podName = (job: string, worker: number): string => `${job}-worker-${worker}`

/** The kinds that the operator reads and writes, with their paths in the API. */
export const COLLECTIONS = {
  ScMoEJob: `/apis/${API_VERSION}/{}${PLURAL}`,
  Pod: '/api/v1/{}pods',
  Service: '/api/v1/{}services',
  /** Only created, never read. */
  Secret: '/api/v1/{}secrets',
  NetworkPolicy: '/apis/networking.k8s.io/v1/{}networkpolicies',
  PodDisruptionBudget: '/apis/policy/v1/{}poddisruptionbudgets',
  // Objects that stand for a gang, one kind per provider. The API group tells equal kinds apart.
  'Workload.scheduling.k8s.io': '/apis/scheduling.k8s.io/v1alpha1/{}workloads',
  'Workload.kueue.x-k8s.io': '/apis/kueue.x-k8s.io/v1beta2/{}workloads',
  'PodGroup.scheduling.x-k8s.io': '/apis/scheduling.x-k8s.io/v1alpha1/{}podgroups',
  'PodGroup.scheduling.volcano.sh': '/apis/scheduling.volcano.sh/v1beta1/{}podgroups',
} as const
export type Kind = keyof typeof COLLECTIONS
export type GroupKind = Extract<Kind, `${string}.${string}`>

/** The object's key in COLLECTIONS. Throws for a kind that is not there. */
export function kindOf({ apiVersion = '', kind = '' }: KubeObject): Kind {
  const found = [kind, `${kind}.${apiVersion.split('/')[0]}`].find(isKind)
  if (found === undefined) throw new Error(`${apiVersion} ${kind} is no kind that the operator handles`)
  return found
}
/** Whether objects of this kind stand for a gang. */
export const isGroup = (kind: Kind): kind is GroupKind => kind.includes('.')
const isKind = (name: string): name is Kind => Object.hasOwn(COLLECTIONS, name)

/** The path of one object, or of a collection. Without a namespace it covers all namespaces. */
export function pathOf(kind: Kind, namespace?: string, name?: string): string {
  const collection = COLLECTIONS[kind].replace('{}', namespace === undefined ? '' : `namespaces/${namespace}/`)
  return name === undefined ? collection : `${collection}/${name}`
}

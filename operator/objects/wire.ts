// Kubernetes objects as they are on the wire (times are strings), cut down to the fields that are read here.

import { API_VERSION, PLURAL } from '../../crds/contract.ts'

/** Plain JSON, which is what is sent. */
export type Json = { readonly [key: string]: unknown }

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
  ownerReferences?: OwnerReference[] | undefined
  managedFields?: unknown
}

export type KubeObject = { apiVersion?: string; kind?: string; metadata: Metadata }

/** An ScMoEJob as the API server holds it: `spec` and `status` are not trusted before zod has seen them. */
export type Job = KubeObject & { spec?: unknown; status?: unknown }

export type ContainerStatus = {
  name: string
  image?: string | undefined
  state?:
    | {
        waiting?: { reason?: string; message?: string }
        running?: { startedAt?: string }
        terminated?: { exitCode: number; reason?: string; message?: string; finishedAt?: string }
      }
    | undefined
}

export type PodCondition = {
  type: string
  status: string
  reason?: string | undefined
  message?: string | undefined
  lastTransitionTime?: string | undefined
}

export type Pod = KubeObject & {
  spec?: { nodeName?: string | undefined } | undefined
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

export const isRecord = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** `namespace/name`. */
export function keyOf(object: KubeObject): string {
  return `${object.metadata.namespace ?? ''}/${object.metadata.name}`
}

/** Which of two versions of an object is newer: resource versions are decimal numbers of any length. */
export function isOlder(version: string | undefined, than: string | undefined): boolean {
  const [a, b] = [version ?? '0', than ?? '0']
  return a.length === b.length ? a < b : a.length < b.length
}

/** As long as a message in a status may be; half a character at the cut would come back as another text. */
export const clip = (text: string, length = 1024): string => text.slice(0, length).toWellFormed()

/** Deterministic and the same in every attempt, so creating one twice is not possible. */
export const podName = (job: string, rank: number): string => `${job}-worker-${rank}`

/** The kinds that the operator reads and writes, with where the API server keeps them. */
export const COLLECTIONS = {
  ScMoEJob: `/apis/${API_VERSION}/{}${PLURAL}`,
  Pod: '/api/v1/{}pods',
  Service: '/api/v1/{}services',
  PodDisruptionBudget: '/apis/policy/v1/{}poddisruptionbudgets',
  // What stands for a gang, one kind per provider: two pairs of them share a name.
  'Workload.scheduling.k8s.io': '/apis/scheduling.k8s.io/v1alpha1/{}workloads',
  'Workload.kueue.x-k8s.io': '/apis/kueue.x-k8s.io/v1beta2/{}workloads',
  'PodGroup.scheduling.x-k8s.io': '/apis/scheduling.x-k8s.io/v1alpha1/{}podgroups',
  'PodGroup.scheduling.volcano.sh': '/apis/scheduling.volcano.sh/v1beta1/{}podgroups',
} as const
export type Kind = keyof typeof COLLECTIONS
export type GroupKind = Extract<Kind, `${string}.${string}`>

/** With its API group where the kind alone says too little. Throws for a kind that is not in COLLECTIONS. */
export function kindOf({ apiVersion = '', kind = '' }: KubeObject): Kind {
  const found = [kind, `${kind}.${apiVersion.split('/')[0]}`].find(isKind)
  if (found === undefined) throw new Error(`${apiVersion} ${kind} is no kind that the operator handles`)
  return found
}
const isKind = (name: string): name is Kind => Object.hasOwn(COLLECTIONS, name)

/** Without a namespace: all of them. */
export function pathOf(kind: Kind, namespace?: string, name?: string): string {
  const collection = COLLECTIONS[kind].replace('{}', namespace === undefined ? '' : `namespaces/${namespace}/`)
  return name === undefined ? collection : `${collection}/${name}`
}

// Scheduling providers: how the pods of a gang get their nodes. Each provider has an object that
// stands for the gang, adds something to the pods, and may say why the gang has to wait.

import { GROUP, KIND, LABEL } from '../../crds/contract.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type Json, list, record } from './json.ts'
import { metadata, type Owner, type Wanted } from './owned.ts'
import type { GroupKind, KubeObject } from './wire.ts'

export const PROVIDERS = ['none', 'kueue', 'coscheduling', 'volcano', 'kubernetes'] as const
export type ProviderName = (typeof PROVIDERS)[number]

export type Scheduler = {
  provider: ProviderName
  /** The pods' schedulerName. If undefined, the provider's default is used. */
  name?: string | undefined
}

/** One attempt of a job, as far as scheduling it needs to know. */
export type Gang = Owner & {
  attempt: number
  spec: ScMoEJobSpec
  scheduler: Scheduler
  job: Pick<KubeObject, 'metadata'>
}
export type PodParts = {
  labels?: Readonly<Record<string, string>>
  annotations?: Readonly<Record<string, string>>
  spec?: Json
}
/** Why the gang has to wait, in the form of a status. */
export type Wait = { reason: string; message: string }

type Provider = {
  /** Kind of the object that stands for a gang. The operator watches its status. */
  kind?: GroupKind
  schedulerName?: string
  /** The object that the operator creates before the pods, if the provider needs one. */
  group?: (gang: Gang) => Wanted
  /** Additions to every pod. */
  parts: (gang: Gang) => PodParts
  /** Why the gang waits, undefined if the provider does not say. */
  wait?: (gang: Gang, groups: readonly KubeObject[]) => Wait | undefined
}

/** The label by which Kueue puts a pod into a group. Its Workload has the group's name. */
export const KUEUE_GROUP_LABEL = 'kueue.x-k8s.io/pod-group-name'
export const KUEUE_WORKLOAD = 'Workload.kueue.x-k8s.io' satisfies GroupKind
const QUEUE_LABEL = 'kueue.x-k8s.io/queue-name'
const PRIORITY_LABEL = 'kueue.x-k8s.io/priority-class'
const KUEUE_GROUP = /^(?<job>.+)-[0-9a-f]{5}-[0-9]+$/

/**
 * Each attempt has a group of its own, because to Kueue a group is over for good once its pods are.
 * The name has at most 63 characters as long as attempts have at most four digits.
 */
const kueueGroup = ({ name, uid, attempt }: Gang): string => `${name}-${uid.replaceAll('-', '').slice(0, 5)}-${attempt}`

/** The job of a Kueue Workload, from the Workload's name. Undefined if it is not one of ours. */
export const jobOfGroup = (group: string): string | undefined => KUEUE_GROUP.exec(group)?.groups?.['job']

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

/**
 * The default scheduler places pods one by one. The first ones get their nodes even if there is no
 * room for the last.
 */
const none: Provider = { parts: gang => ({ spec: near(gang) }) }

/**
 * Plain pod groups (https://kueue.sigs.k8s.io/docs/tasks/run/plain_pods/). Kueue's webhook holds
 * the pods back until there is quota for all of them.
 */
const kueue: Provider = {
  kind: KUEUE_WORKLOAD,
  parts: gang => {
    const given = gang.job.metadata.labels ?? {}
    const queue = gang.spec.scheduling.queueName ?? given[QUEUE_LABEL]
    const [topology] = gang.spec.scheduling.constraints.topology ?? []
    return {
      labels: {
        [KUEUE_GROUP_LABEL]: kueueGroup(gang),
        ...(queue === undefined ? {} : { [QUEUE_LABEL]: queue }),
        ...(given[PRIORITY_LABEL] === undefined ? {} : { [PRIORITY_LABEL]: given[PRIORITY_LABEL] }),
      },
      annotations: {
        'kueue.x-k8s.io/pod-group-total-count': String(gang.spec.workers.replicas),
        // The pods are alike, so the first one tells Kueue what all of them need.
        'kueue.x-k8s.io/pod-group-fast-admission': 'true',
        // A failed pod is not replaced within its group. The next attempt is another group.
        'kueue.x-k8s.io/retriable-in-group': 'false',
        ...(topology === undefined ? {} : { 'kueue.x-k8s.io/podset-required-topology': topology.key }),
      },
    }
  },
  wait: (gang, groups) => {
    const workload = groups.find(({ metadata: { name } }) => name === kueueGroup(gang))
    const conditions = list(record(record(workload)['status'])['conditions'])
    const isTrue = (type: string) => conditions.some(each => each['type'] === type && each['status'] === 'True')
    if (workload === undefined || isTrue('Admitted')) return undefined
    const reserved = conditions.find(each => each['type'] === 'QuotaReserved')
    const message = text(reserved?.['message']) ?? 'the queue has not looked at the group yet'
    return isTrue('QuotaReserved')
      ? { reason: 'WaitingForAdmission', message: `Kueue: ${message}; the admission checks are not done` }
      : { reason: 'WaitingForQuota', message: `Kueue: ${message}` }
  },
}

/** https://scheduler-plugins.sigs.k8s.io/docs/kep/42-podgroup-coscheduling/readme/ */
const coscheduling: Provider = {
  kind: 'PodGroup.scheduling.x-k8s.io',
  schedulerName: 'scheduler-plugins-scheduler',
  group: gang => ({
    apiVersion: 'scheduling.x-k8s.io/v1alpha1',
    kind: 'PodGroup',
    metadata: metadata(gang, gang.name),
    spec: { minMember: gang.spec.workers.replicas },
  }),
  parts: gang => ({ labels: { 'scheduling.x-k8s.io/pod-group': gang.name }, spec: near(gang) }),
}

/** https://volcano.sh/docs/schduler_introduction/ */
const volcano: Provider = {
  kind: 'PodGroup.scheduling.volcano.sh',
  schedulerName: 'volcano',
  group: gang => {
    const { queueName } = gang.spec.scheduling
    const priority = record(record(gang.spec.workers.template)['spec'])['priorityClassName']
    return {
      apiVersion: 'scheduling.volcano.sh/v1beta1',
      kind: 'PodGroup',
      metadata: metadata(gang, gang.name),
      spec: {
        minMember: gang.spec.workers.replicas,
        ...(queueName === undefined ? {} : { queue: queueName }),
        ...(typeof priority === 'string' ? { priorityClassName: priority } : {}),
      },
    }
  },
  parts: gang => ({ annotations: { 'scheduling.k8s.io/group-name': gang.name }, spec: near(gang) }),
  wait: ({ name }, groups) => {
    const group = groups.find(({ metadata: { name: of } }) => of === name)
    const condition = list(record(record(group)['status'])['conditions']).find(
      each => each['type'] === 'Unschedulable' && each['status'] === 'True',
    )
    return condition === undefined
      ? undefined
      : { reason: 'Unschedulable', message: `Volcano: ${text(condition['message']) ?? 'the gang does not fit'}` }
  },
}

/** Name of the pod group within a Workload. */
const WORKERS = 'workers'

/** The pod groups of a Workload are immutable, so a gang of another size has another Workload. */
const workloadName = ({ name, spec }: Gang): string => `${name}-${spec.workers.replicas}`

/** Gang scheduling in Kubernetes 1.35 (feature gates GenericWorkload and GangScheduling). */
const kubernetes: Provider = {
  kind: 'Workload.scheduling.k8s.io',
  group: gang => ({
    apiVersion: 'scheduling.k8s.io/v1alpha1',
    kind: 'Workload',
    metadata: metadata(gang, workloadName(gang)),
    spec: {
      controllerRef: { apiGroup: GROUP, kind: KIND, name: gang.name },
      podGroups: [{ name: WORKERS, policy: { gang: { minCount: gang.spec.workers.replicas } } }],
    },
  }),
  parts: gang => ({
    spec: { ...near(gang), workloadRef: { name: workloadName(gang), podGroup: WORKERS } },
  }),
}

const BY_NAME: Readonly<Record<ProviderName, Provider>> = { none, kueue, coscheduling, volcano, kubernetes }

export const groupKind = ({ provider }: Scheduler): GroupKind | undefined => BY_NAME[provider].kind
export const groupOf = (gang: Gang): Wanted | undefined => BY_NAME[gang.scheduler.provider].group?.(gang)
export const waitOf = (gang: Gang, groups: readonly KubeObject[]): Wait | undefined =>
  BY_NAME[gang.scheduler.provider].wait?.(gang, groups)

export function partsOf(gang: Gang): PodParts {
  const provider = BY_NAME[gang.scheduler.provider]
  const schedulerName = gang.scheduler.name ?? provider.schedulerName
  const { spec, ...parts } = provider.parts(gang)
  return { ...parts, spec: { ...(schedulerName === undefined ? {} : { schedulerName }), ...spec } }
}

/**
 * The topology constraint for providers without one of their own, as affinity of every worker to
 * all others. The first worker can be scheduled, because a pod counts as matching its own term.
 */
function near({ spec, uid }: Gang): Json {
  const [topology] = spec.scheduling.constraints.topology ?? []
  if (topology === undefined) return {}
  const term = { labelSelector: { matchLabels: { [LABEL.jobUid]: uid } }, topologyKey: topology.key }
  return { affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } } }
}

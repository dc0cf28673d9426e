// How the pods of a gang get their nodes: for each provider the object that stands for the gang, what goes into its pods, and what it says
// while it lets them wait. Pure.

import { GROUP, KIND, LABEL } from '../../crds/contract.ts'
import { isStopping } from '../plan/gang.ts'
import type { View } from '../plan/view.ts'
import { list, metadata, record, type Wanted } from './owned.ts'
import type { GroupKind, Json, KubeObject, Pod } from './wire.ts'

export const PROVIDERS = ['none', 'kueue', 'coscheduling', 'volcano', 'kubernetes'] as const
export type ProviderName = (typeof PROVIDERS)[number]

export type Scheduler = {
  provider: ProviderName
  /** Of the pods; undefined: the provider's own. */
  name?: string | undefined
}

/** One attempt's pods. */
export type Gang = Pick<View, 'name' | 'namespace' | 'uid' | 'attempt' | 'spec' | 'scheduler'> & {
  job: Pick<View['job'], 'metadata'>
}
export type PodParts = {
  labels?: Readonly<Record<string, string>>
  annotations?: Readonly<Record<string, string>>
  spec?: Json
}
/** Why the gang has to wait, as a status has it. */
export type Wait = { reason: string; message: string }

type Provider = {
  /** What it keeps per gang, watched for its status. */
  kind?: GroupKind
  schedulerName?: string
  /** Made before the pods; without it there is none, or the provider makes it. */
  group?: (gang: Gang) => Wanted
  /** For every pod. */
  parts: (gang: Gang) => PodParts
  /** Undefined: it says nothing. */
  wait?: (gang: Gang, groups: readonly KubeObject[]) => Wait | undefined
}

const GROUP_LABEL = 'kueue.x-k8s.io/pod-group-name'
const QUEUE_LABEL = 'kueue.x-k8s.io/queue-name'
const PRIORITY_LABEL = 'kueue.x-k8s.io/priority-class'
const KUEUE_GROUP = /^(?<job>.+)-[0-9a-f]{5}-[0-9]+$/

/** Another name for each attempt: to Kueue a group is over for good when its pods are. At most 63 characters while attempts have four digits. */
const kueueGroup = ({ name, uid, attempt }: Gang): string => `${name}-${uid.replaceAll('-', '').slice(0, 5)}-${attempt}`

/** The job that a Workload of Kueue is of, by its name; undefined where it is none of ours. */
export const jobOfGroup = (group: string): string | undefined => KUEUE_GROUP.exec(group)?.groups?.['job']

/**
 * Workloads of Kueue that hold up the end of their pods. Kueue keeps a finalizer on each pod of a group until the group is over, which it
 * never is while a pod was deleted without a kubelet that could end it: before it got a node, or by force because its node is gone. Without
 * its Workload the whole group is let go.
 */
export function abandoned(pods: readonly Pod[], groups: readonly KubeObject[]): KubeObject[] {
  return groups.filter(({ metadata: { name } }) => {
    const members = pods.filter(pod => pod.metadata.labels?.[GROUP_LABEL] === name)
    const hasNoKubelet = members.some(pod => isStopping(pod) && pod.metadata.deletionGracePeriodSeconds === 0)
    return hasNoKubelet && members.every(isStopping)
  })
}

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

/** Pods of the default scheduler's, one by one: nothing holds the first ones back while there is no room for the last. */
const none: Provider = { parts: gang => ({ spec: near(gang) }) }

/** Plain pod groups (https://kueue.sigs.k8s.io/docs/tasks/run/plain_pods/): its webhook holds the pods back until there is quota for all. */
const kueue: Provider = {
  kind: 'Workload.kueue.x-k8s.io',
  parts: gang => {
    const given = gang.job.metadata.labels ?? {}
    const queue = gang.spec.scheduling.queueName ?? given[QUEUE_LABEL]
    const [topology] = gang.spec.scheduling.constraints.topology ?? []
    return {
      labels: {
        [GROUP_LABEL]: kueueGroup(gang),
        ...(queue === undefined ? {} : { [QUEUE_LABEL]: queue }),
        ...(given[PRIORITY_LABEL] === undefined ? {} : { [PRIORITY_LABEL]: given[PRIORITY_LABEL] }),
      },
      annotations: {
        'kueue.x-k8s.io/pod-group-total-count': String(gang.spec.workers.replicas),
        // The pods are alike: the first one says what all need.
        'kueue.x-k8s.io/pod-group-fast-admission': 'true',
        // A pod that failed is not replaced in its group: all end, and the next attempt is a group of its own.
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
    const message = text(reserved?.['message']) ?? 'the queue has not looked at it yet'
    return isTrue('QuotaReserved')
      ? { reason: 'WaitingForAdmission', message: `Kueue: ${message}; its admission checks are not done` }
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

/** The group within a Workload. */
const WORKERS = 'workers'

/** Its groups cannot be changed, so a gang of another size has another Workload. */
const workloadName = ({ name, spec }: Gang): string => `${name}-${spec.workers.replicas}`

/** Kubernetes' own, of 1.35: needs the feature gates GenericWorkload and GangScheduling. */
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
 * The topology constraint where the provider has none of its own: every worker next to every other. The scheduler lets the first one
 * in, as a pod may ask for the nearness of pods like itself.
 */
function near({ spec, uid }: Gang): Json {
  const [topology] = spec.scheduling.constraints.topology ?? []
  if (topology === undefined) return {}
  const term = { labelSelector: { matchLabels: { [LABEL.jobUid]: uid } }, topologyKey: topology.key }
  return { affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } } }
}

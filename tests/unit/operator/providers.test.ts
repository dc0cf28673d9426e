// Tests of the scheduling providers: their objects and pods are accepted by each project's own
// schema, and a waiting job repeats what the provider says.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { type Path, pathText, schemaProblems, unknownFields } from '../../../cli/structural.ts'
import { LABEL } from '../../../crds/contract.ts'
import type { Schema } from '../../../crds/definition/definition.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { groupOf, PROVIDERS, type ProviderName, partsOf } from '../../../operator/objects/providers.ts'
import { pod } from '../../../operator/objects/workers.ts'
import { plan } from '../../../operator/plan/plan.ts'
import { attemptOf, runningWorld, World } from '../../support/operator-world.ts'

const gang = (provider: ProviderName, spec: object = {}, labels: Record<string, string> = {}) => ({
  name: 'gpt',
  namespace: 'ns',
  uid: '01234567-89ab-cdef-0123-456789abcdef',
  attempt: 2,
  workerImage: 'worker:1',
  gpuWorkerImage: 'worker-gpu:1',
  scheduler: { provider },
  job: { metadata: { name: 'gpt', labels } },
  spec: ScMoEJobSpec.parse({ training: { steps: 10 }, workers: { replicas: 4 }, ...spec }),
})
type PodOf = { metadata: object; spec: Record<string, unknown> }
const podOf = (...of: Parameters<typeof gang>): PodOf => {
  const { metadata, spec }: { metadata: object; spec?: unknown } = pod(gang(...of), 1)
  return { metadata, spec: spec as Record<string, unknown> }
}
const rack = { scheduling: { constraints: { topology: [{ key: 'example.com/rack' }] } } }
const nextToEachOther = {
  labelSelector: { matchLabels: { [LABEL.jobUid]: '01234567-89ab-cdef-0123-456789abcdef' } },
  topologyKey: 'example.com/rack',
}

/** The objections of an API server with this file's CRD to an object. */
function refusals(file: string, object: Record<string, unknown>): string[] {
  const crd: { spec: { versions: { name: string; schema: { openAPIV3Schema: Schema } }[] } } = parse(
    readFileSync(`tests/schedulers/${file}.yaml`, 'utf8'),
  )
  const [version] = crd.spec.versions
  expect(object['apiVersion']).toContain(`/${version?.name}`)
  const { apiVersion: _, kind: __, metadata: ___, ...rest } = object
  const schema = version?.schema.openAPIV3Schema ?? {}
  const problems: { path: Path; message: string }[] = [...unknownFields(rest, schema), ...schemaProblems(rest, schema)]
  return problems.map(({ path, message }) => `${pathText(path)}: ${message}`)
}

describe('none', () => {
  it('adds nothing to the pods and makes no object', () => {
    expect(groupOf(gang('none'))).toBeUndefined()
    expect(partsOf(gang('none'))).toEqual({ spec: {} })
  })
})

describe('kueue', () => {
  it('makes the pods a plain pod group, of its own in each attempt', () => {
    const { metadata, spec } = podOf('kueue', { scheduling: { queueName: 'team-a' } })
    expect(metadata).toMatchObject({
      labels: {
        'kueue.x-k8s.io/queue-name': 'team-a',
        'kueue.x-k8s.io/pod-group-name': 'gpt-01234-2',
        [LABEL.attempt]: '2',
      },
      annotations: {
        'kueue.x-k8s.io/pod-group-total-count': '4',
        'kueue.x-k8s.io/pod-group-fast-admission': 'true',
        'kueue.x-k8s.io/retriable-in-group': 'false',
      },
    })
    expect(spec).not.toHaveProperty('schedulerName')
    expect(groupOf(gang('kueue'))).toBeUndefined()
  })

  it('takes queue and priority from the labels of the job, where its users put them', () => {
    const labels = { 'kueue.x-k8s.io/queue-name': 'team-b', 'kueue.x-k8s.io/priority-class': 'urgent', app: 'x' }
    expect(podOf('kueue', {}, labels).metadata).toMatchObject({
      labels: { 'kueue.x-k8s.io/queue-name': 'team-b', 'kueue.x-k8s.io/priority-class': 'urgent' },
    })
    expect(partsOf(gang('kueue', {}, labels)).labels).not.toHaveProperty('app')
  })

  it('leaves the topology to Kueue, which knows how much of each rack is free', () => {
    const { metadata, spec } = podOf('kueue', rack)
    expect(metadata).toMatchObject({ annotations: { 'kueue.x-k8s.io/podset-required-topology': 'example.com/rack' } })
    expect(spec).not.toHaveProperty('affinity')
  })

  it('has names for groups that fit into a label', () => {
    const { labels } = partsOf({ ...gang('kueue'), name: 'a'.repeat(51), attempt: 9999 })
    expect(labels?.['kueue.x-k8s.io/pod-group-name']).toHaveLength(62)
  })
})

describe('a pod group of Kueue', () => {
  const member = (group: string, metadata: object = {}) => ({
    metadata: { name: 'gpt-worker-0', labels: { 'kueue.x-k8s.io/pod-group-name': group }, ...metadata },
  })
  const groups = [{ metadata: { name: 'gpt-01234-1' } }, { metadata: { name: 'gpt-01234-2' } }]
  const stopping = { deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 60 }
  const withoutKubelet = { ...stopping, deletionGracePeriodSeconds: 0 }
  /** The Workloads that a plan deletes for a job that is gone. */
  const names = (...pods: ReturnType<typeof member>[]) =>
    plan({ job: undefined, pods, groups }, 0).actions.map(action =>
      action.kind === 'deleteWorkload' ? action.workload.metadata.name : action.kind,
    )

  it('is let go when a pod of it was deleted that no kubelet will end', () => {
    expect(names(member('gpt-01234-1', withoutKubelet), member('gpt-01234-1', stopping))).toEqual(['gpt-01234-1'])
  })

  it('is left to Kueue while kubelets end its pods, while one runs, and when all are gone', () => {
    expect(names(member('gpt-01234-1', stopping))).toEqual([])
    expect(names(member('gpt-01234-1', withoutKubelet), member('gpt-01234-1'))).toEqual([])
    expect(names(member('gpt-01234-2'))).toEqual([])
    expect(names()).toEqual([])
  })
})

describe('coscheduling', () => {
  it('makes a PodGroup that its CRD takes, of all workers, and its scheduler that of the pods', () => {
    const group = groupOf(gang('coscheduling'))
    expect(group).toMatchObject({
      apiVersion: 'scheduling.x-k8s.io/v1alpha1',
      kind: 'PodGroup',
      metadata: { name: 'gpt', namespace: 'ns', labels: { [LABEL.jobName]: 'gpt' } },
      spec: { minMember: 4 },
    })
    expect(refusals('podgroups.scheduling.x-k8s.io', group ?? {})).toEqual([])
    expect(podOf('coscheduling')).toMatchObject({
      metadata: { labels: { 'scheduling.x-k8s.io/pod-group': 'gpt' } },
      spec: { schedulerName: 'scheduler-plugins-scheduler' },
    })
  })
})

describe('volcano', () => {
  it('makes a PodGroup that its CRD takes, with queue and priority', () => {
    const template = { spec: { priorityClassName: 'urgent' } }
    const spec = { scheduling: { queueName: 'team-a' }, workers: { replicas: 4, template } }
    const group = groupOf(gang('volcano', spec))
    expect(group).toMatchObject({
      apiVersion: 'scheduling.volcano.sh/v1beta1',
      spec: { minMember: 4, queue: 'team-a', priorityClassName: 'urgent' },
    })
    expect(refusals('podgroups.scheduling.volcano.sh', group ?? {})).toEqual([])
    expect(podOf('volcano')).toMatchObject({
      metadata: { annotations: { 'scheduling.k8s.io/group-name': 'gpt' } },
      spec: { schedulerName: 'volcano' },
    })
  })

  it('would be refused with a field that the CRD does not have', () => {
    const group = { ...groupOf(gang('volcano')), spec: { minMembers: 4, queue: 'Team A' } }
    expect(refusals('podgroups.scheduling.volcano.sh', group)).toHaveLength(2)
  })
})

describe('kubernetes', () => {
  it('makes a Workload with one group of all workers, another one for a gang of another size', () => {
    expect(groupOf(gang('kubernetes'))).toMatchObject({
      apiVersion: 'scheduling.k8s.io/v1alpha1',
      kind: 'Workload',
      metadata: { name: 'gpt-4' },
      spec: {
        controllerRef: { apiGroup: 'scmoe.dev', kind: 'ScMoEJob', name: 'gpt' },
        podGroups: [{ name: 'workers', policy: { gang: { minCount: 4 } } }],
      },
    })
    expect(podOf('kubernetes').spec['workloadRef']).toEqual({ name: 'gpt-4', podGroup: 'workers' })
    expect(podOf('kubernetes', { workers: { replicas: 2 } }).spec['workloadRef']).toMatchObject({ name: 'gpt-2' })
  })
})

describe('every provider', () => {
  it.each(PROVIDERS)('%s leaves schedulerName to the template, then to the option', provider => {
    const template = { spec: { schedulerName: 'mine' } }
    expect(podOf(provider, { workers: { template } }).spec).toMatchObject({ schedulerName: 'mine' })
    expect(partsOf({ ...gang(provider), scheduler: { provider, name: 'option' } }).spec).toMatchObject({
      schedulerName: 'option',
    })
  })

  it.each(PROVIDERS.filter(name => name !== 'kueue'))('%s keeps the gang in one topology domain', provider => {
    expect(podOf(provider, rack).spec['affinity']).toEqual({
      podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [nextToEachOther] },
    })
    expect(podOf(provider).spec).not.toHaveProperty('affinity')
  })

  it('adds that to what the template asks for', () => {
    const other = { labelSelector: { matchLabels: { app: 'cache' } }, topologyKey: 'kubernetes.io/hostname' }
    const affinity = {
      nodeAffinity: { x: 1 },
      podAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [other],
        preferredDuringSchedulingIgnoredDuringExecution: [],
      },
    }
    expect(podOf('none', { ...rack, workers: { template: { spec: { affinity } } } }).spec['affinity']).toEqual({
      nodeAffinity: { x: 1 },
      podAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [other, nextToEachOther],
        preferredDuringSchedulingIgnoredDuringExecution: [],
      },
    })
  })
})

describe('a job that waits for its nodes', () => {
  it('has the group before its pods, and once', () => {
    const world = new World({}, 'coscheduling')
    expect(world.settle().slice(0, 4)).toEqual([
      'create Service gpt',
      'create PodGroup gpt',
      'create Secret gpt-uid-1',
      'create Pod gpt-worker-0',
    ])
    expect(world.changes()).toEqual([])
  })

  it('has the group repaired when someone changes it', () => {
    const world = new World({}, 'volcano')
    world.settle()
    world.groups = world.groups.map(group => ({ ...group, spec: { minMember: 1 } }))
    expect(world.changes()).toEqual(['apply PodGroup gpt'])
  })

  it('is Queued with the words of the scheduler, of a pod that fits nowhere before one that is held back', () => {
    const world = new World()
    world.settle()
    world.gated('gpt-worker-0')
    expect(world.changes()).toEqual([
      'write Queued, SchedulingGated: gpt-worker-0: Scheduling is blocked due to non-empty scheduling gates',
    ])
    world.unschedulable('gpt-worker-1', '0/3 nodes are available: 3 Insufficient nvidia.com/gpu.')
    expect(world.changes()).toEqual([
      'write Queued, Unschedulable: gpt-worker-1: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.',
    ])
    expect(world.status.conditions?.find(({ type }) => type === 'WorkersReady')).toMatchObject({
      status: 'False',
      reason: 'Unschedulable',
    })
  })

  it('is not Queued any more once all have their nodes', () => {
    const world = new World()
    world.settle()
    world.unschedulable('gpt-worker-0', 'no room')
    world.settle()
    for (const name of world.pods.keys()) world.ready(name)
    expect(world.changes()).toContain('write Running, AllWorkersReady: all workers are ready')
    expect([...world.pods.values()].map(attemptOf)).toEqual([1, 1])
  })

  it('says what Kueue says, of this attempt alone', () => {
    const world = new World({}, 'kueue')
    world.settle()
    for (const name of world.pods.keys()) world.gated(name)
    const workload = (name: string, ...conditions: object[]) => ({ metadata: { name }, status: { conditions } })
    const message = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default"
    const pending = { type: 'QuotaReserved', status: 'False', reason: 'Pending', message }
    world.groups = [workload('gpt-uid1-7', pending)]
    expect(world.settle()[0]).toContain('write Queued, SchedulingGated')
    world.groups = [workload('gpt-uid1-1', pending)]
    expect(world.changes()).toEqual([`write Queued, WaitingForQuota: Kueue: ${message}`])
    const reserved = { ...pending, status: 'True', message: 'Quota reserved in ClusterQueue gpus' }
    world.groups = [workload('gpt-uid1-1', reserved)]
    expect(world.changes()).toEqual([
      'write Queued, WaitingForAdmission: Kueue: Quota reserved in ClusterQueue gpus; the admission checks are not done',
    ])
    world.groups = [workload('gpt-uid1-1', reserved, { type: 'Admitted', status: 'True' })]
    world.unschedulable('gpt-worker-0', 'no room')
    expect(world.changes()).toEqual(['write Queued, Unschedulable: gpt-worker-0: no room'])
  })

  it('does not count a preemption by Kueue as a failure', () => {
    const world = runningWorld({ failurePolicy: { maxRestarts: 0 } })
    const taken = world.pods.get('gpt-worker-1')
    const message = 'Preempted to accommodate a workload of higher priority'
    world.remove('gpt-worker-1')
    const condition = { type: 'TerminationTarget', status: 'True', reason: 'WorkloadEvicted', message }
    if (taken !== undefined) taken.status = { ...taken.status, conditions: [condition] }
    expect(world.settle()[0]).toContain('write Restarting, PodDeleted: gpt-worker-1 was deleted in attempt 1')
    expect(world.status).toMatchObject({ state: 'Restarting', lastFailure: { reason: 'WorkloadEvicted', message } })
  })

  it('says what Volcano says of the gang', () => {
    const world = new World({}, 'volcano')
    world.settle()
    world.unschedulable('gpt-worker-0', 'pod group is not ready')
    const message = '2/2 tasks in gang unschedulable: pod group is not ready, 2 minAvailable, 2 Pending'
    const status = { phase: 'Inqueue', conditions: [{ type: 'Unschedulable', status: 'True', message }] }
    world.groups = world.groups.map(group => ({ ...group, status }))
    expect(world.changes()).toEqual([`write Queued, Unschedulable: Volcano: ${message}`])
  })
})

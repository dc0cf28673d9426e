// Tests of what ended a pod, in which container and by whose act: one row for each thing that a pod
// can say, and what the job makes of it.

import { describe, expect, it } from 'vitest'
import { endOf } from '../../../operator/objects/pod-end.ts'
import type { Pod } from '../../../operator/objects/wire.ts'
import { runningWorld, T0, World } from '../../support/operator-world.ts'

type Status = NonNullable<Pod['status']>
type Case = {
  status: Status
  spec?: Pod['spec']
  deleted?: true
  isProbed?: true
  /** The end that is to be found. */
  is: object
}

const ended = (name: string, exitCode: number, more = {}) => ({ name, state: { terminated: { exitCode, ...more } } })
const failed = (more: Status): Status => ({ phase: 'Failed', ...more })
const disrupted = (reason: string) => [{ type: 'DisruptionTarget', status: 'True', reason, message: 'words' }]
const refused = (reason: string, message = 'Pod was rejected: words') => failed({ reason, message })
const INIT = { initContainers: [{ name: 'fetch' }, { name: 'proxy', restartPolicy: 'Always' }] }

const CASES: Record<string, Case> = {
  'a worker that fails by itself': {
    status: failed({ containerStatuses: [ended('worker', 70)] }),
    is: { act: 'worker', counts: true, reason: 'internal', exitCode: 70 },
  },
  'a worker beside a sidecar that failed before': {
    status: failed({ containerStatuses: [ended('proxy', 1), ended('worker', 70)] }),
    is: { act: 'worker', counts: true, reason: 'internal', exitCode: 70 },
  },
  'a worker that used too much memory': {
    status: failed({ containerStatuses: [ended('worker', 137, { reason: 'OOMKilled' })] }),
    is: { act: 'worker', counts: true, reason: 'OOMKilled' },
  },
  'a worker that used too much memory in a pod that was deleted since': {
    status: failed({ containerStatuses: [ended('worker', 137, { reason: 'OOMKilled' })] }),
    deleted: true,
    is: { act: 'worker', counts: true, reason: 'OOMKilled' },
  },
  'an init container that fails with a code of the worker': {
    status: failed({ initContainerStatuses: [ended('fetch', 65, { message: 'no such bucket' })] }),
    spec: INIT,
    is: {
      act: 'template',
      counts: true,
      container: 'fetch',
      exitCode: 65,
      reason: 'InitContainerFailed',
      message: 'init container fetch failed; its log ends: no such bucket',
    },
  },
  'an init container that used too much memory': {
    status: failed({ initContainerStatuses: [ended('fetch', 137, { reason: 'OOMKilled' })] }),
    is: { act: 'template', container: 'fetch', message: 'init container fetch failed (OOMKilled)' },
  },
  'a sidecar before the worker that fails on its own way out': {
    status: failed({ initContainerStatuses: [ended('proxy', 1)], containerStatuses: [ended('worker', 70)] }),
    spec: INIT,
    is: { act: 'worker', reason: 'internal', exitCode: 70 },
  },
  'a pod that somebody deleted': {
    status: { phase: 'Running', containerStatuses: [ended('worker', 143)] },
    deleted: true,
    is: { act: 'others', counts: false, byItself: false, reason: 'PodDeleted' },
  },
  'a worker that fails on the way out of a pod that somebody deleted': {
    status: failed({ containerStatuses: [ended('worker', 73, { finishedAt: '2026-01-01T00:00:05Z' })] }),
    deleted: true,
    is: { act: 'others', counts: false, reason: 'PodDeleted', exitCode: 73 },
  },
  'a worker that had failed before somebody deleted its pod': {
    status: failed({ containerStatuses: [ended('worker', 73, { finishedAt: '2025-12-31T23:59:50Z' })] }),
    deleted: true,
    is: { act: 'worker', counts: true, reason: 'checkpoint' },
  },
  'an eviction by the API': {
    status: failed({ conditions: disrupted('EvictionByEvictionAPI'), containerStatuses: [ended('worker', 143)] }),
    deleted: true,
    is: { act: 'others', counts: false, reason: 'EvictionByEvictionAPI', message: 'words' },
  },
  'preemption by the scheduler': {
    status: { phase: 'Running', conditions: disrupted('PreemptionByScheduler') },
    deleted: true,
    is: { act: 'others', counts: false, reason: 'PreemptionByScheduler' },
  },
  'a node that is lost': {
    status: failed({ conditions: disrupted('DeletionByPodGC'), containerStatuses: [{ name: 'worker', ready: true }] }),
    is: { act: 'node', counts: false, reason: 'DeletionByPodGC' },
  },
  'an eviction by the kubelet for want of memory on the node': {
    status: failed({
      reason: 'Evicted',
      message: 'The node was low on resource: memory.',
      conditions: disrupted('TerminationByKubelet'),
      containerStatuses: [ended('worker', 137)],
    }),
    is: { act: 'node', counts: false, reason: 'Evicted', message: 'The node was low on resource: memory.' },
  },
  'an eviction by a kubelet without the condition': {
    status: failed({ reason: 'Evicted', message: 'The node was low on resource: memory.' }),
    is: { act: 'node', counts: false, reason: 'Evicted' },
  },
  'an eviction because the pod fills its own emptyDir': {
    status: failed({
      reason: 'Evicted',
      message: 'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi".',
      containerStatuses: [ended('worker', 137)],
    }),
    is: { act: 'worker', counts: true, byItself: false, reason: 'Evicted' },
  },
  'a device that is not there yet after a reboot': {
    status: refused('UnexpectedAdmissionError', 'Pod was rejected: Allocate failed'),
    is: { act: 'node', counts: false, reason: 'UnexpectedAdmissionError', verb: 'was refused by its node' },
  },
  'a running pod that its kubelet refuses when it starts again': {
    status: failed({
      reason: 'OutOfcpu',
      message: 'Node did not have enough',
      containerStatuses: [ended('worker', 137)],
    }),
    is: { act: 'node', counts: false, reason: 'OutOfcpu' },
  },
  'a node whose labels do not fit any more': { status: refused('NodeAffinity'), is: { act: 'node', counts: false } },
  'a reason of a kubelet of later times': { status: refused('SomethingNew'), is: { act: 'node', counts: false } },
  'a node that shuts down': {
    status: failed({
      reason: 'Terminated',
      message: 'Pod was terminated in response to imminent node shutdown.',
      conditions: disrupted('TerminationByKubelet'),
      containerStatuses: [ended('worker', 143)],
    }),
    is: { act: 'node', counts: false, reason: 'Terminated' },
  },
  'a container that nobody finds after a reboot': {
    status: failed({ containerStatuses: [ended('worker', 137, { reason: 'ContainerStatusUnknown' })] }),
    is: { act: 'node', counts: false, reason: 'ContainerStatusUnknown' },
  },
  'a container that the runtime forgot': {
    status: failed({ containerStatuses: [ended('worker', 255, { reason: 'Unknown' })] }),
    is: { act: 'node', counts: false, reason: 'ContainerStatusUnknown' },
  },
  'a sysctl that no node allows': {
    status: refused('SysctlForbidden', 'forbidden sysctl: "kernel.x" not allowlisted'),
    is: { act: 'template', counts: true, reason: 'SysctlForbidden' },
  },
  "the template's activeDeadlineSeconds": {
    status: failed({ reason: 'DeadlineExceeded', message: 'words', containerStatuses: [ended('worker', 143)] }),
    is: { act: 'template', counts: true, byItself: false, reason: 'DeadlineExceeded' },
  },
  "a liveness probe of the user's": {
    status: failed({ containerStatuses: [ended('worker', 143)] }),
    isProbed: true,
    is: { act: 'template', counts: true, reason: 'ProbeFailed' },
  },
  'a stop that nobody explains': {
    status: failed({ containerStatuses: [ended('worker', 143)] }),
    is: { act: 'worker', counts: true, reason: 'terminated' },
  },
  'a pod that says nothing at all': {
    status: failed({ containerStatuses: [{ name: 'worker', state: { running: {} } }] }),
    is: { act: 'worker', counts: true, reason: 'PodFailed' },
  },
}

// Seen failing with exit code 65 of an init container read as badData, and with pods that their
// node refused counted as failures.
describe('the end of a pod', () => {
  it.each(Object.entries(CASES))('is told for %s', (_, { status, spec, deleted, isProbed, is }) => {
    const stop = { deletionTimestamp: '2026-01-01T00:01:00Z', deletionGracePeriodSeconds: 60 }
    const pod: Pod = { metadata: { name: 'gpt-worker-0', ...(deleted && stop) }, status, ...(spec && { spec }) }
    expect(endOf(pod, { isProbed: isProbed === true })).toMatchObject(is)
  })
})

const policy = (rules?: object[], maxRestarts = 0) => ({
  failurePolicy: { maxRestarts, backoff: { initialSeconds: 10 }, rules },
})
const says = (world: World, name: string, status: Status, spec?: Pod['spec']) => {
  const pod = world.pods.get(name)
  if (pod === undefined) throw new Error(`no pod ${name}`)
  Object.assign(pod, { status: { ...pod.status, ...status }, spec: { ...pod.spec, ...spec } })
}

describe('a gang', () => {
  // Seen failing with the pod's condition Ready in place of the worker's own readiness.
  it('trains on beside a sidecar that ends, also one that ends before the gang is ready', () => {
    for (const world of [new World({ startupDeadlineSeconds: 60 }), runningWorld({ progressDeadlineSeconds: 20 })]) {
      world.settle()
      const worker = { name: 'worker', ready: true, state: { running: {} } }
      const conditions = ['Ready', 'ContainersReady'].map(type => ({
        type,
        status: 'False',
        lastTransitionTime: new Date(world.now).toISOString(),
      }))
      const containerStatuses = [worker, { ...ended('sidecar', 0), ready: false }]
      for (const name of world.pods.keys()) says(world, name, { phase: 'Running', conditions, containerStatuses })
      world.settle()
      world.wait(61)
      world.answers(5)
      world.settle()
      expect(world.status).toMatchObject({ state: 'Running', restarts: 0, workers: { ready: 2 } })
    }
  })

  it('hangs by the worker alone: the time of a sidecar that ended long before does not count', () => {
    const world = runningWorld({ progressDeadlineSeconds: 20 })
    const [since, other] = [new Date(world.now).toISOString(), { ...ended('sidecar', 0), ready: false }]
    const conditions = [{ type: 'Ready', status: 'False', lastTransitionTime: since }]
    const status = (ready: boolean): Status => ({
      phase: 'Running',
      conditions,
      containerStatuses: [{ name: 'worker', ready, state: { running: {} } }, other],
    })
    says(world, 'gpt-worker-0', status(true))
    world.wait(100)
    world.answers(5)
    world.settle()
    says(world, 'gpt-worker-0', status(false))
    world.settle()
    expect(world.status).toMatchObject({ state: 'Running', restarts: 0 })
    world.wait(21)
    world.settle()
    expect(world.status).toMatchObject({ restarts: 1, lastFailure: { reason: 'ProgressDeadlineExceeded' } })
  })

  it('is not ready where its node does not answer, whatever the kubelet said of the containers before', () => {
    const world = runningWorld()
    const conditions = [
      { type: 'ContainersReady', status: 'True' },
      { type: 'Ready', status: 'False' },
    ]
    says(world, 'gpt-worker-1', { conditions })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Running', reason: 'WorkersNotReady' })
  })

  it('whose init container fails is restarted by its own name, and never read as the worker', () => {
    const world = new World(policy([{ action: 'FailJob', onExitCodes: { operator: 'In', values: [65] } }], 3))
    world.settle()
    says(world, 'gpt-worker-1', failed({ initContainerStatuses: [ended('fetch', 65, { message: 'no bucket' })] }), INIT)
    expect(world.settle()[0]).toBe(
      'write Restarting, InitContainerFailed: gpt-worker-1 failed in attempt 1: exit code 65, InitContainerFailed: init container fetch failed; its log ends: no bucket; restart 1 of 3',
    )
    expect(world.status.lastFailure).toMatchObject({ container: 'fetch', exitCode: 65, podName: 'gpt-worker-1' })
  })

  it('fails by a rule about an init container that names it', () => {
    const onExitCodes = { operator: 'In', values: [65], containerName: 'fetch' }
    const world = new World(policy([{ action: 'FailJob', onExitCodes }], 3))
    world.settle()
    says(world, 'gpt-worker-0', failed({ initContainerStatuses: [ended('fetch', 65)] }), INIT)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'FailJobRule' })
    const other = runningWorld(policy([{ action: 'FailJob', onExitCodes: { ...onExitCodes, values: [70] } }], 3))
    other.end('gpt-worker-0', { exitCode: 70 })
    other.settle()
    expect(other.status).toMatchObject({ state: 'Restarting', reason: 'WorkerFailed' })
  })

  it('whose pod is refused by its node again and again counts none of it, and a rule can fit it', () => {
    const refusal = refused('UnexpectedAdmissionError')
    const world = runningWorld(policy())
    says(world, 'gpt-worker-1', { ...refusal, containerStatuses: [] })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', reason: 'PodDisrupted', restartsCountTowardsMax: 0 })
    const ruled = runningWorld(policy([{ action: 'FailJob', onPodConditions: [{ type: 'DisruptionTarget' }] }], 3))
    says(ruled, 'gpt-worker-1', { ...refusal, containerStatuses: [] })
    ruled.settle()
    expect(ruled.status).toMatchObject({ state: 'Failed', reason: 'FailJobRule' })
  })

  it('whose deadline is over by the time alone says which, for a second look', () => {
    const deadlineOf = (world: World) => world.plan().deadline
    const active = runningWorld({ activeDeadlineSeconds: 50 })
    active.wait(50)
    const start = new World({ startupDeadlineSeconds: 50 })
    start.settle()
    start.wait(50)
    const finished = runningWorld({ ttlSecondsAfterFinished: 50 })
    for (const name of finished.pods.keys()) finished.end(name, { exitCode: 0 })
    finished.settle()
    finished.wait(51)
    const stuck = runningWorld({ podTerminationTimeoutSeconds: 50 })
    stuck.edit({ suspend: true })
    stuck.settle()
    stuck.wait(111)
    const crashed = runningWorld()
    crashed.end('gpt-worker-0', { exitCode: 70 })
    expect([active, start, finished, stuck, crashed].map(deadlineOf)).toEqual([
      'activeDeadlineSeconds',
      'StartupDeadlineExceeded',
      'ttlSecondsAfterFinished',
      'podTerminationTimeoutSeconds',
      undefined,
    ])
  })

  it('is never active for longer than it exists, whatever its start time says', () => {
    const world = runningWorld({ activeDeadlineSeconds: 3600 })
    world.job.metadata.creationTimestamp = new Date(T0).toISOString()
    world.job.status = { ...world.status, startTime: new Date(T0 - 7_200_000).toISOString() }
    world.wait(60)
    expect(world.plan().status?.state).not.toBe('Failed')
  })

  it('does not wait for a restart that a wrong clock put hours away', () => {
    const world = runningWorld(policy(undefined, 3))
    world.end('gpt-worker-0', { exitCode: 70 })
    world.settle()
    world.gone()
    world.job.status = { ...world.status, nextRestartTime: new Date(world.now + 7_200_000).toISOString() }
    expect(world.settle()).toContain('create Pod gpt-worker-0')
  })
})

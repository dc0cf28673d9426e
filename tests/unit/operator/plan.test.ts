import { describe, expect, it } from 'vitest'
import { EXIT } from '../../../crds/contract.ts'
import { failure, runningWorld, T0, World } from '../../support/operator-world.ts'

const START = [
  'create Service gpt',
  'create Secret gpt-uid-1',
  'create Pod gpt-worker-0',
  'create Pod gpt-worker-1',
  'write Starting, WorkersStarting: created the workers of attempt 1, waiting for all to be ready',
]
const condition = (world: World, type: string) => world.status.conditions?.find(each => each.type === type)?.status

describe('a job that goes well', () => {
  it('gets everything at once, then runs, then is complete', () => {
    const world = new World()
    expect(world.settle()).toEqual(START)
    world.ready('gpt-worker-1')
    world.settle()
    expect(world.status).toMatchObject({ state: 'Starting', workers: { desired: 2, ready: 1, active: 2 } })
    world.ready('gpt-worker-0')
    expect(world.settle()).toEqual([
      'create PodDisruptionBudget gpt',
      'write Running, AllWorkersReady: all workers are ready',
      'look again at 2026-01-01T00:05:00.000Z',
    ])
    world.end('gpt-worker-0', { exitCode: 0 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Running', workers: { ready: 1, succeeded: 1 } })
    world.end('gpt-worker-1', { exitCode: 0 })
    expect(world.settle()).toEqual(['write Complete, AllWorkersSucceeded: all 2 workers reached step 100'])
    expect([condition(world, 'Complete'), condition(world, 'Running'), condition(world, 'Failed')]).toEqual([
      'True',
      'False',
      undefined,
    ])
    expect(world.pods.size).toBe(2)
  })

  it('keeps finished pods, whose phase comes a moment after the end of their containers, but not a sidecar that runs on', () => {
    const world = runningWorld()
    for (const [name, pod] of world.pods) {
      world.end(name, { exitCode: 0 })
      pod.status = { ...pod.status, phase: 'Running' }
    }
    const second = world.pods.get('gpt-worker-1')?.status
    second?.containerStatuses?.push({ name: 'sidecar', state: { running: {} } })
    expect(world.settle()).toEqual([
      'report step 100 of 100',
      'write Complete, AllWorkersSucceeded: all 2 workers reached step 100',
      'delete Pod gpt-worker-1: the job is finished',
    ])
  })

  it('is complete also when pods that did all steps are taken away before the last has', () => {
    const world = runningWorld()
    world.end('gpt-worker-0', { exitCode: 0 })
    world.settle()
    world.vanish('gpt-worker-0')
    world.settle()
    expect(world.status).toMatchObject({ state: 'Running', workers: { active: 1, succeeded: 1 } })
    world.end('gpt-worker-1', { exitCode: 0 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Complete', restarts: 0, workers: { succeeded: 2 } })
  })

  // Seen failing with the number of a worker compared with the rank label of its pod.
  it('is complete with several GPUs per worker, too, when a pod that did all steps is taken away', () => {
    const world = runningWorld({ workers: { replicas: 2, gpusPerWorker: 2 } })
    world.end('gpt-worker-1', { exitCode: 0 })
    world.settle()
    world.vanish('gpt-worker-1')
    world.settle()
    world.end('gpt-worker-0', { exitCode: 0 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Complete', restarts: 0, workers: { succeeded: 2 } })
  })

  it('stays Running when a readiness probe fails for a moment, and says so', () => {
    const world = runningWorld()
    world.unready('gpt-worker-0')
    // The worker that is not ready keeps no node from being drained.
    expect(world.settle().slice(0, 2)).toEqual([
      'apply PodDisruptionBudget gpt',
      'write Running, WorkersNotReady: not all workers are ready',
    ])
    expect(world.budget).toMatchObject({ spec: { minAvailable: 0 } })
    expect([condition(world, 'Running'), condition(world, 'WorkersReady')]).toEqual(['True', 'False'])
  })

  it('ends exactly at the step of the last words, with the throughput observed before', () => {
    const world = runningWorld()
    const observedTime = '2026-01-01T00:00:00Z'
    const throughput = { tokensPerSecond: 500, observedTime }
    world.job.status = {
      ...world.status,
      progress: { step: 90, totalSteps: 100, percent: 90, initialLossMilli: 5500 },
      throughput,
    }
    const progress = {
      jobUid: 'uid-1',
      attempt: 1,
      rank: 0,
      step: 100,
      totalSteps: 100,
      lossMilli: 1200,
      observedTime: '2026-01-01T00:01:00Z',
      lastCheckpointStep: 100,
    }
    world.end('gpt-worker-0', { exitCode: 0, message: JSON.stringify({ progress }) })
    world.end('gpt-worker-1', { exitCode: 0 })
    expect(world.settle()[0]).toBe('report step 100 of 100')
    expect(world.status.progress).toEqual({
      step: 100,
      totalSteps: 100,
      percent: 100,
      lossMilli: 1200,
      initialLossMilli: 5500,
      lastStepTime: '2026-01-01T00:00:00Z',
    })
    expect(world.status.throughput).toEqual(throughput)
    expect(world.status.lastCheckpoint).toEqual({ step: 100 })
  })

  it("does not believe the last words of another job's worker", () => {
    const world = runningWorld()
    const progress = {
      jobUid: 'uid-0',
      attempt: 1,
      rank: 0,
      step: 7,
      totalSteps: 100,
      observedTime: '2026-01-01T00:01:00Z',
    }
    world.end('gpt-worker-0', { exitCode: 0, message: JSON.stringify({ progress }) })
    world.settle()
    expect(world.status.progress).toBeUndefined()
  })
})

describe('a worker that fails', () => {
  it('is put on record first; then the gang is deleted; the next attempt waits for its time and for all old pods to be gone', () => {
    const world = runningWorld()
    world.end('gpt-worker-1', { exitCode: 70, message: failure(1, 'internal', 'expert 3 is NaN') })
    expect(world.settle()).toEqual([
      'write Restarting, WorkerFailed: gpt-worker-1 failed in attempt 1: exit code 70, internal: expert 3 is NaN; restart 1 of 3',
      'look again at 2026-01-01T00:00:10.000Z',
      'delete Pod gpt-worker-0: it belongs to an earlier attempt',
      'delete Pod gpt-worker-1: it belongs to an earlier attempt',
      'look again at 2026-01-01T00:00:10.000Z',
    ])
    expect(world.status).toMatchObject({
      restarts: 1,
      attempt: 2,
      nextRestartTime: '2026-01-01T00:00:10Z',
      workers: { desired: 2, ready: 0, failed: 0, active: 0 },
    })
    world.wait(10)
    expect([world.settle(), world.plan().requeueAt]).toEqual([[], T0 + 15_000])
    world.wait(5)
    expect(world.settle()).toEqual([
      'write Restarting, WaitingForPods: waiting for pod gpt-worker-0 on node node-1 to be gone',
    ])
    world.gone()
    expect(world.settle()).toEqual([
      'apply PodDisruptionBudget gpt',
      'create Secret gpt-uid-1',
      'create Pod gpt-worker-0',
      'create Pod gpt-worker-1',
      'write Starting, WorkersStarting: created the workers of attempt 2, waiting for all to be ready',
    ])
    expect(world.status.nextRestartTime).toBeUndefined()
  })

  it('restarts after 10, 20, then at most 25 s, and fails when the restarts are used up', () => {
    const world = runningWorld()
    const delays: number[] = []
    for (let attempt = 1; attempt <= 3; attempt++) {
      world.end('gpt-worker-0', { exitCode: 1 })
      world.settle()
      delays.push((Date.parse(world.status.nextRestartTime ?? '') - world.now) / 1000)
      world.wait(delays.at(-1) ?? 0)
      world.gone()
      world.settle()
    }
    expect(delays).toEqual([10, 20, 25])
    world.ready('gpt-worker-0')
    world.end('gpt-worker-1', { exitCode: 1, message: 'Error: boom' })
    expect(world.settle()).toEqual([
      'write Failed, MaxRestartsExceeded: gpt-worker-1 failed in attempt 4: exit code 1, Error: Error: boom; failurePolicy.maxRestarts is 3',
      'delete Pod gpt-worker-0: the job is finished',
    ])
    expect(world.status).toMatchObject({
      restarts: 3,
      lastFailure: { attempt: 4, podName: 'gpt-worker-1', exitCode: 1 },
    })
  })

  it.each(Object.entries(EXIT).filter(([, { permanent }]) => permanent))(
    'with %s ends the job at once',
    (reason, { code, meaning }) => {
      const world = runningWorld()
      world.end('gpt-worker-1', { exitCode: code })
      world.settle()
      expect(world.status).toMatchObject({
        state: 'Failed',
        reason: 'PermanentFailure',
        restarts: 0,
        lastFailure: { exitCode: code, reason, message: meaning },
      })
    },
  )

  it('is not the one that says its peer is lost: the peer is, though its end was reported later', () => {
    const world = runningWorld()
    world.end('gpt-worker-0', { exitCode: 75, message: failure(0, 'peerLost', 'rank 1 hung up') })
    expect(world.settle().at(-1)).toBe('look again at 2026-01-01T00:00:05.000Z')
    expect(world.status.state).toBe('Running')
    world.wait(2)
    world.end('gpt-worker-1', { exitCode: 137, reason: 'OOMKilled' })
    world.settle()
    expect(world.status.lastFailure).toMatchObject({ podName: 'gpt-worker-1', exitCode: 137, reason: 'OOMKilled' })
  })

  it('is the one that says its peer is lost when nobody else fails within 5 s', () => {
    const world = runningWorld()
    world.end('gpt-worker-0', { exitCode: 75, message: failure(0, 'peerLost', 'rank 1 does not answer') })
    world.settle()
    expect(world.plan().requeueAt).toBe(T0 + 5000)
    world.wait(5)
    world.settle()
    expect(world.status.lastFailure).toMatchObject({
      podName: 'gpt-worker-0',
      reason: 'peerLost',
      message: 'rank 1 does not answer',
    })
  })

  it.each([
    [{ exitCode: 137 }, { reason: 'SIGKILL', message: 'killed by SIGKILL' }],
    [
      { exitCode: 139, message: 'Segmentation fault' },
      { reason: 'SIGSEGV', message: 'killed by SIGSEGV; its log ends: Segmentation fault' },
    ],
    [
      { exitCode: 128, reason: 'StartError', message: 'exec: no such file' },
      { reason: 'StartError', message: 'exec: no such file' },
    ],
    [
      { exitCode: 70, message: '{"not": a record' },
      { reason: 'internal', message: '{"not": a record' },
    ],
    [
      { exitCode: 1, message: '{"level":30,"msg":"say \\"a\\"","b":1}\nplain' },
      { reason: 'Error', message: 'say \\"a\\"\nplain' },
    ],
    [
      { exitCode: 70, message: `😀${'x'.repeat(899)}` },
      { reason: 'internal', message: `\uFFFD${'x'.repeat(899)}` },
    ],
    [{ exitCode: 3 }, { reason: 'Error', message: 'the container failed and left no message' }],
  ])('with %j is described as %j', (end, expected) => {
    const world = runningWorld()
    world.end('gpt-worker-0', end)
    world.settle()
    expect(world.status.lastFailure).toMatchObject(expected)
  })

  it('whose pod was evicted by the kubelet is described in its words', () => {
    const world = runningWorld()
    const pod = world.pods.get('gpt-worker-1')
    if (pod !== undefined)
      pod.status = { phase: 'Failed', reason: 'Evicted', message: 'The node was low on resource: memory.' }
    world.settle()
    expect(world.status.lastFailure).toEqual({
      attempt: 1,
      podName: 'gpt-worker-1',
      nodeName: 'node-1',
      reason: 'Evicted',
      message: 'The node was low on resource: memory.',
    })
  })

  it('counts as deleted when its pod is told to stop by someone else, and the others stop with it', () => {
    const world = runningWorld()
    world.remove('gpt-worker-1', { reason: 'EvictionByEvictionAPI', message: 'Eviction API: evicting' })
    expect(world.settle().slice(2)).toEqual([
      'delete Pod gpt-worker-0: it belongs to an earlier attempt',
      'look again at 2026-01-01T00:00:10.000Z',
    ])
    expect(world.status.lastFailure).toMatchObject({ podName: 'gpt-worker-1', reason: 'EvictionByEvictionAPI' })
    expect(world.status).toMatchObject({
      reason: 'PodDeleted',
      message: expect.stringContaining('gpt-worker-1 was deleted in attempt 1'),
    })
  })

  it('counts as deleted when its pod is not there any more', () => {
    const world = runningWorld()
    world.pods.delete('gpt-worker-0')
    world.settle()
    expect(world.status).toMatchObject({
      state: 'Restarting',
      reason: 'PodDeleted',
      lastFailure: { podName: 'gpt-worker-0' },
    })
  })

  it('does not count while the operator has not yet made all pods: a missing one is made', () => {
    const world = new World()
    world.step({ actions: 3, write: false })
    expect([...world.pods.keys()]).toEqual(['gpt-worker-0'])
    expect(world.settle()).toEqual([
      'create Secret gpt-uid-1',
      'create Pod gpt-worker-1',
      'write Starting, WorkersStarting: created the workers of attempt 1, waiting for all to be ready',
    ])
  })
})

describe('suspension', () => {
  it('deletes the pods and counts none; a resumed job is another attempt and waits for the old pods', () => {
    const world = runningWorld()
    world.edit({ suspend: true })
    expect(world.settle()).toEqual([
      'delete Pod gpt-worker-0: the job is suspended',
      'delete Pod gpt-worker-1: the job is suspended',
      'write Suspended, Stopping: waiting for the workers to stop',
    ])
    expect(world.status).toMatchObject({ attempt: 2, workers: { desired: 0, ready: 0, active: 0 } })
    world.edit({ suspend: false })
    expect(world.settle()).toEqual([
      'write Pending, WaitingForPods: waiting for pod gpt-worker-0 on node node-1 to be gone',
    ])
    world.gone()
    world.settle()
    expect(world.status).toMatchObject({ state: 'Starting', attempt: 2, restarts: 0, observedGeneration: 3 })
  })

  it('is said once the last pod is gone', () => {
    const world = runningWorld()
    world.edit({ suspend: true })
    world.settle()
    world.gone()
    expect(world.settle()).toEqual(['write Suspended, Suspended: spec.suspend is true: no pods until it is false'])
    expect(condition(world, 'Suspended')).toBe('True')
  })

  it('does not turn the exit codes of stopped workers into failures', () => {
    const world = runningWorld()
    world.edit({ suspend: true })
    world.settle()
    world.end('gpt-worker-0', { exitCode: 143 })
    world.end('gpt-worker-1', { exitCode: 75 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Suspended', restarts: 0 })
    expect(world.status.lastFailure).toBeUndefined()
  })

  it('allows another number of workers', () => {
    const world = runningWorld()
    world.edit({ suspend: true })
    world.settle()
    world.gone()
    world.edit({ suspend: false, workers: { replicas: 3 } })
    expect(world.settle().slice(0, 5)).toEqual([
      'apply PodDisruptionBudget gpt',
      'create Secret gpt-uid-1',
      'create Pod gpt-worker-0',
      'create Pod gpt-worker-1',
      'create Pod gpt-worker-2',
    ])
  })

  it('of a finished job changes nothing', () => {
    const world = runningWorld()
    world.end('gpt-worker-0', { exitCode: 0 })
    world.end('gpt-worker-1', { exitCode: 0 })
    world.settle()
    world.edit({ suspend: true })
    expect(world.settle()).toEqual([])
  })
})

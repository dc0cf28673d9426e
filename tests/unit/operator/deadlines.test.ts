import { describe, expect, it } from 'vitest'
import { why } from '../../../cli/cluster/why.ts'
import { refusedStatus } from '../../../operator/plan/status.ts'
import { failure, maxRestarts, runningWorld, T0, World } from '../../support/operator-world.ts'

const conditionOf = (world: World, type: string) => world.status.conditions?.find(each => each.type === type)
const lookAgain = (world: World) => ((world.plan().requeueAt ?? 0) - T0) / 1000

describe('the deadline on progress', () => {
  const spec = { ...maxRestarts(1), progressDeadlineSeconds: 600 }

  it('is half over: the job is Stalled, and runs again with the next step', () => {
    const world = runningWorld(spec)
    world.wait(30)
    world.answers(7)
    world.settle()
    expect(lookAgain(world)).toBe(330)
    world.wait(300)
    world.answers(7)
    expect(world.settle()).toEqual([
      'report step 7 of 100',
      'write Stalled, NoStep: no step was finished since 2026-01-01T00:00:30Z (step 7); without one the gang fails at 2026-01-01T00:10:30Z',
      'look again at 2026-01-01T00:10:30.000Z',
    ])
    expect(['Running', 'Progressing', 'WorkersReady'].map(type => conditionOf(world, type)?.status)).toEqual([
      'True',
      'False',
      'True',
    ])
    world.wait(1)
    world.answers(8)
    expect(world.settle()[0]).toBe('write Running, AllWorkersReady: all workers are ready')
    expect(conditionOf(world, 'Progressing')?.status).toBe('True')
  })

  it('is over: the gang restarts by failurePolicy, and fails when that is used up', () => {
    const world = runningWorld(spec)
    world.answers(7)
    world.settle()
    world.wait(600)
    world.answers(7)
    expect(world.settle()[1]).toBe(
      'write Restarting, ProgressDeadlineExceeded: gpt-worker-0 failed in attempt 1: ProgressDeadlineExceeded: no step was finished for 600 s after step 7; all workers are ready; restart 1 of 1',
    )
    expect(conditionOf(world, 'Progressing')?.status).toBe('False')
    world.wait(10)
    world.gone()
    world.settle()
    for (const name of world.pods.keys()) world.ready(name)
    world.settle()
    // The step of the attempt before does not count for this one.
    world.wait(1)
    world.answers(7)
    world.settle()
    expect(world.status.state).toBe('Running')
    world.wait(598)
    world.answers(7)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Stalled', restarts: 1 })
    world.wait(1)
    world.answers(7)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'MaxRestartsExceeded', restarts: 1 })
  })

  it('names the worker that is not ready: one that hangs does not answer its probe either', () => {
    const world = runningWorld(spec)
    world.unready('gpt-worker-1')
    world.wait(600)
    world.answers(0)
    world.wait(600)
    world.answers(0)
    world.settle()
    expect(world.status.lastFailure).toEqual({
      attempt: 1,
      podName: 'gpt-worker-1',
      nodeName: 'node-1',
      reason: 'ProgressDeadlineExceeded',
      message: 'no step was finished for 600 s after step 0; gpt-worker-1 is not ready',
    })
  })

  it('holds for a rank 0 that answers neither the operator nor its own node', () => {
    const world = runningWorld(spec)
    world.answers(3)
    world.unready('gpt-worker-0')
    world.wait(599)
    world.settle()
    expect(world.status.state).toBe('Stalled')
    world.wait(1)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', lastFailure: { podName: 'gpt-worker-0' } })
  })

  // Seen failing with a deadline that counts from the last step alone: every job restarted when the
  // operator could not reach the pods.
  it('proves nothing while this operator cannot reach a rank 0 that is ready', () => {
    const world = runningWorld(spec)
    world.answers(3)
    world.wait(100_000)
    expect(world.settle()).toEqual([
      "write Running, ProgressUnknown: gpt-worker-0 is ready, but its progress cannot be read since 2026-01-01T00:00:00Z: look at the operator's log",
      'look again at 2026-01-02T03:46:55.000Z',
    ])
    expect(conditionOf(world, 'Progressing')?.status).toBe('Unknown')
    world.answers(90)
    expect(world.settle()[0]).toBe('write Running, AllWorkersReady: all workers are ready')
  })

  it("does not believe an earlier attempt's step", () => {
    const world = runningWorld(spec)
    world.answers(3)
    world.wait(700)
    world.lastAnswer = { attempt: 0, step: 3, at: world.now }
    world.settle()
    expect(world.status.reason).toBe('ProgressUnknown')
  })
})

describe('the deadline on a start', () => {
  const spec = { ...maxRestarts(1), startupDeadlineSeconds: 60 }

  it('counts from the first node and names what holds up the worst pod', () => {
    const world = new World(spec)
    world.settle()
    world.ready('gpt-worker-0')
    world.waiting('gpt-worker-1', 'ImagePullBackOff', 'ErrImagePull: manifest unknown')
    world.settle()
    expect(lookAgain(world)).toBe(60)
    world.wait(60)
    expect(world.settle()[0]).toBe(
      'write Restarting, StartupDeadlineExceeded: gpt-worker-1 failed in attempt 1: StartupDeadlineExceeded: 1 of 2 workers were ready 60 s after the first got its node; gpt-worker-1 cannot pull image "worker:1": manifest unknown; restart 1 of 1',
    )
    expect(world.status.lastFailure).toMatchObject({ podName: 'gpt-worker-1', reason: 'StartupDeadlineExceeded' })
  })

  it("names a readinessProbe of the user's, which takes the place of the worker's own", () => {
    const template = { spec: { containers: [{ name: 'worker', readinessProbe: { tcpSocket: { port: 1 } } }] } }
    const world = new World({ ...spec, workers: { replicas: 1, template } })
    world.settle()
    world.unready('gpt-worker-0')
    world.wait(60)
    world.settle()
    expect(world.status.lastFailure?.message).toContain(
      'gpt-worker-0 is not ready by the readinessProbe of spec.workers.template',
    )
  })

  it('does not count while no worker has a node: that is a queue', () => {
    const world = new World(spec)
    world.room = 0
    world.settle()
    world.wait(100_000)
    expect(world.settle()).toEqual([])
    expect(world.status).toMatchObject({ state: 'Queued', restarts: 0 })
  })

  it('does not count for a gang that was ready once', () => {
    const world = runningWorld(spec)
    world.unready('gpt-worker-1')
    world.wait(61)
    world.answers(1)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Running', reason: 'WorkersNotReady' })
  })
})

describe('a gang of which only some find nodes', () => {
  const spec = { ...maxRestarts(0), scheduling: { timeoutSeconds: 100 } }

  it('gives them back when its time is over, and is queued again without a restart on its account', () => {
    const world = new World(spec)
    world.room = 1
    expect(world.settle().slice(-2)).toEqual([
      'write Queued, Unschedulable: gpt-worker-1: 0/1 nodes are available',
      'look again at 2026-01-01T00:01:40.000Z',
    ])
    world.wait(100)
    const [first, second, sentence] = world.settle()
    expect([first, second]).toEqual([
      'delete Pod gpt-worker-0: the gang is queued again',
      'delete Pod gpt-worker-1: the gang is queued again',
    ])
    expect(sentence).toBe(
      'write Queued, SchedulingTimeout: 1 of 2 workers had nodes for 100 s and gave them back; gpt-worker-1: 0/1 nodes are available',
    )
    expect(world.status).toMatchObject({ attempt: 2, restarts: 0, workers: { active: 0 } })
    const pause = Date.parse(world.status.nextRestartTime ?? '') - world.now
    expect(pause).toBeGreaterThanOrEqual(10_000)
    expect(pause).toBeLessThanOrEqual(61_000)
    world.gone()
    expect(world.settle()).toEqual([])
    world.wait(61)
    world.room = 2
    world.settle()
    expect(world.status).toMatchObject({ state: 'Starting', attempt: 2 })
    expect(world.status.nextRestartTime).toBeUndefined()
  })

  it('does not come back at the same moment as another that gave way with it', () => {
    const pauses = ['a-4dc1', 'b-93e0', 'c-77a2', 'd-0b15'].map(uid => {
      const world = new World(spec)
      world.job.metadata.uid = uid
      world.room = 1
      world.settle()
      world.wait(100)
      world.settle()
      return world.status.nextRestartTime
    })
    expect(new Set(pauses).size).toBeGreaterThan(1)
  })

  it('waits for as long as it takes where it holds no node', () => {
    const world = new World(spec)
    world.room = 0
    world.settle()
    const { attempt } = world.status
    world.wait(1_000_000)
    expect(world.settle()).toEqual([])
    expect(world.status.attempt).toBe(attempt)
  })
})

describe('a gang of which the API server admits only some workers', () => {
  const spec = { workers: { replicas: 3 }, ...maxRestarts(0), scheduling: { timeoutSeconds: 100 } }
  /** A quota with room for two pods. */
  function short(more = {}): World {
    const world = new World({ ...spec, ...more })
    world.step({ actions: 3, write: false })
    const message = 'Pod gpt-worker-2: pods "gpt-worker-2" is forbidden: exceeded quota: team'
    world.job.status = { ...world.status, ...refusedStatus(world.job, { reason: 'CreateRefused', message }, world.now) }
    return world
  }

  // Seen failing without the policy: the two workers held their part of the quota for ever.
  it('gives them back after a time, and tries again after a pause, without a restart on its account', () => {
    const world = short()
    expect(world.plan().requeueAt).toBe(T0 + 100_000)
    world.wait(100)
    const done = world.settle()
    expect(done.slice(0, 3)).toEqual([
      'delete Pod gpt-worker-0: the gang is queued again',
      'delete Pod gpt-worker-1: the gang is queued again',
      'write Queued, AdmissionTimeout: 2 of 3 workers were admitted for 100 s and gave them back; Pod gpt-worker-2: pods "gpt-worker-2" is forbidden: exceeded quota: team',
    ])
    expect(world.status).toMatchObject({ attempt: 2, restarts: 0 })
    world.gone()
    world.wait(61)
    expect(world.settle()).toContain('create Pod gpt-worker-2')
  })

  it('does so at once when its workers have given up the others', () => {
    const world = short()
    world.end('gpt-worker-0', { exitCode: 74, message: failure(0, 'rendezvous', 'rank 2 did not come') })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Queued', reason: 'AdmissionTimeout', restarts: 0 })
  })

  it('does so, too, when all its pods are there but its Service is refused', () => {
    const world = new World(spec)
    world.settle()
    world.service = undefined
    Object.assign(world.job, { status: undefined })
    const message = 'Service gpt: services "gpt" is forbidden: exceeded quota: team'
    world.job.status = { ...refusedStatus(world.job, { reason: 'CreateRefused', message }, world.now) }
    world.wait(100)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Queued', reason: 'AdmissionTimeout', restarts: 0 })
  })

  it('starts smaller if it may', () => {
    const world = short({
      workers: { replicas: 3, minReplicas: 2 },
      checkpoint: { volume: { emptyDir: {} } },
      model: { experts: 6 },
      training: { steps: 100, globalBatchSequences: 6 },
    })
    world.wait(100)
    world.settle()
    world.gone()
    world.settle()
    expect(world.status).toMatchObject({ state: 'Starting', attempt: 2, workers: { desired: 2 } })
  })

  it('is told by `scmoe why` in terms of the quota', () => {
    const world = short()
    world.wait(100)
    world.settle()
    const text = why({ job: world.job, pods: [], now: world.now })
    expect(text).toContain('exceeded quota: team')
    expect(text).toContain('Raise the quota that the message names')
    expect(text).not.toMatch(/network polic/)
  })
})

import { describe, expect, it } from 'vitest'
import { failure, runningWorld, type World } from '../../support/operator-world.ts'

const DISRUPTIONS = [
  ['eviction', 'EvictionByEvictionAPI'],
  ['preemption', 'PreemptionByScheduler'],
  ['node drain', 'DeletionByTaintManager'],
  ['node loss', 'DeletionByPodGC'],
] as const

const policy = (maxRestarts: number, rules?: object[]) => ({
  failurePolicy: { maxRestarts, backoff: { initialSeconds: 10, maxSeconds: 40, resetAfterSeconds: 600 }, rules },
})

/** Ends the back-off, removes the old pods, and lets the next attempt run. */
function again(world: World): void {
  world.now = Date.parse(world.status.nextRestartTime ?? '')
  world.gone()
  world.settle()
  for (const name of world.pods.keys()) world.ready(name)
  world.settle()
}
const delay = (world: World) => (Date.parse(world.status.nextRestartTime ?? '') - world.now) / 1000

describe('a pod that is taken away', () => {
  it.each(DISRUPTIONS)('by %s does not count against maxRestarts', (_, reason) => {
    const world = runningWorld(policy(0))
    for (let restarts = 1; restarts <= 3; restarts++) {
      world.remove('gpt-worker-1', { reason, message: 'taken away' })
      world.end('gpt-worker-1', { exitCode: 143 })
      world.settle()
      expect(world.status).toMatchObject({ state: 'Restarting', restarts, restartsCountTowardsMax: 0 })
      expect(world.status.message).toBe(
        `gpt-worker-1 was deleted in attempt ${restarts}: exit code 143, ${reason}: taken away; a restart that does not count`,
      )
      again(world)
    }
    world.end('gpt-worker-0', { exitCode: 70 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'MaxRestartsExceeded', restarts: 3 })
  })

  // Seen failing with an evicted pod that was gone before the operator looked: the restart counted.
  it('does not count either when it is gone before anyone looks', () => {
    const world = runningWorld(policy(0))
    world.remove('gpt-worker-1', { reason: 'EvictionByEvictionAPI', message: 'evicted' })
    world.gone()
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', restartsCountTowardsMax: 0 })
    expect(world.status.lastFailure).toMatchObject({ reason: 'EvictionByEvictionAPI', nodeName: 'node-1' })
  })

  it('is described by its last words if it failed before it went', () => {
    const world = runningWorld(policy(0))
    world.end('gpt-worker-1', { exitCode: 65, message: failure(1, 'badData', 'no such file') })
    world.vanish('gpt-worker-1')
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'PermanentFailure', lastFailure: { exitCode: 65 } })
  })

  // Seen failing with a restart that counts unless a condition says who deleted the pod.
  it('does not count where somebody deleted it by hand, which is no failure of training', () => {
    const world = runningWorld(policy(0))
    world.remove('gpt-worker-1')
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', reason: 'PodDeleted', restartsCountTowardsMax: 0 })
  })

  it('still waits for the back-off, so that a node that throws pods out is no storm', () => {
    const world = runningWorld(policy(0))
    const delays = [1, 2, 3, 4].map(() => {
      world.remove('gpt-worker-0', { reason: 'EvictionByEvictionAPI', message: 'evicted' })
      world.settle()
      const seconds = delay(world)
      again(world)
      return seconds
    })
    expect(delays).toEqual([10, 20, 40, 40])
  })
})

describe('the back-off', () => {
  // Seen failing with the end of the back-off rounded to whole seconds.
  it('ends to the millisecond so long after the failure was seen', () => {
    const world = runningWorld(policy(10))
    world.wait(0.321)
    world.end('gpt-worker-0', { exitCode: 70 })
    expect(world.plan().requeueAt).toBe(world.now + 10_000)
    world.settle()
    expect(world.status.nextRestartTime).toBe('2026-01-01T00:00:10.321Z')
    world.gone()
    world.wait(9.999)
    expect(world.settle()).toEqual([])
    world.wait(0.001)
    expect(world.settle()).toContain('create Pod gpt-worker-0')
  })

  it('starts again after the gang ran for resetAfterSeconds, and not before', () => {
    const world = runningWorld(policy(10))
    const delays = [1, 599, 600, 1].map(ran => {
      world.wait(ran)
      world.lastAnswer = { attempt: world.status.attempt ?? 1, step: ran, at: world.now }
      world.end('gpt-worker-0', { exitCode: 70 })
      world.settle()
      const seconds = delay(world)
      again(world)
      return seconds
    })
    expect(delays).toEqual([10, 20, 10, 20])
    expect(world.status).toMatchObject({ restarts: 4, restartsCountTowardsMax: 4, consecutiveRestarts: 2 })
  })

  it('starts again with a job that is resumed; what counted still counts', () => {
    const world = runningWorld(policy(10))
    world.end('gpt-worker-0', { exitCode: 70 })
    world.settle()
    world.edit({ suspend: true })
    world.settle()
    expect(world.status).toMatchObject({ restartsCountTowardsMax: 1, consecutiveRestarts: 0 })
  })
})

describe('rules of the failure policy', () => {
  const onExitCodes = (operator: 'In' | 'NotIn', ...values: number[]) => ({ onExitCodes: { operator, values } })
  const onPodConditions = (type: string) => ({ onPodConditions: [{ type }] })

  const fails = ['write Failed, FailJobRule: ', '; the job fails by failurePolicy.rules[0]'] as const
  const restarts = ['write Restarting, WorkerFailed: ', '; restart 1 of 2'] as const
  const ignored = [
    'write Restarting, WorkerFailed: ',
    '; a restart that does not count by failurePolicy.rules[0]',
  ] as const
  const knownBetter = ['write Restarting, WorkerFailed: ', '; restart 1 of 2 by failurePolicy.rules[0]'] as const

  it.each([
    ['FailJob', onExitCodes('In', 3, 4), 3, fails],
    ['FailJob', onExitCodes('NotIn', 3, 4), 5, fails],
    ['FailJob', onExitCodes('NotIn', 3, 4), 3, restarts],
    ['RestartJobIgnoreMaxRestarts', onExitCodes('In', 3), 3, ignored],
    // Without the rule, exit code 65 would fail the job.
    ['RestartJob', onExitCodes('In', 65), 65, knownBetter],
    ['FailJob', onPodConditions('DisruptionTarget'), 3, restarts],
  ])('%s for %j and exit code %d', (action, on, exitCode, [start, end]) => {
    const world = runningWorld(policy(2, [{ action, ...on }]))
    world.end('gpt-worker-1', { exitCode, message: 'boom' })
    const [sentence = ''] = world.settle()
    expect(sentence.slice(0, start.length)).toBe(start)
    expect(sentence.endsWith(end), sentence).toBe(true)
  })

  it('are asked in order', () => {
    const rules = [
      { action: 'RestartJobIgnoreMaxRestarts', ...onExitCodes('In', 3) },
      { action: 'FailJob', ...onExitCodes('NotIn', 4) },
    ]
    const world = runningWorld(policy(2, rules))
    world.end('gpt-worker-1', { exitCode: 3 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', restartsCountTowardsMax: 0 })
    again(world)
    world.end('gpt-worker-1', { exitCode: 5 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'FailJobRule' })
  })

  it('can make an eviction count, or end the job', () => {
    const world = runningWorld(policy(2, [{ action: 'RestartJob', ...onPodConditions('DisruptionTarget') }]))
    world.remove('gpt-worker-1', { reason: 'EvictionByEvictionAPI', message: 'evicted' })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', restartsCountTowardsMax: 1 })
  })

  // Seen failing with rules asked about 143, the exit code of a drained worker.
  it('about exit codes are not asked about a pod that was told to stop', () => {
    const world = runningWorld(policy(0, [{ action: 'FailJob', ...onExitCodes('In', 143) }]))
    world.remove('gpt-worker-1', { reason: 'EvictionByEvictionAPI', message: 'evicted' })
    world.end('gpt-worker-1', { exitCode: 143 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', restartsCountTowardsMax: 0 })
  })

  it('are asked about the pod that failed first, not about its victims', () => {
    const world = runningWorld(policy(0, [{ action: 'FailJob', ...onExitCodes('In', 75) }]))
    world.end('gpt-worker-0', { exitCode: 75, after: -2000 })
    world.remove('gpt-worker-1', { reason: 'PreemptionByScheduler', message: 'preempted' })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', lastFailure: { podName: 'gpt-worker-1' } })
  })
})

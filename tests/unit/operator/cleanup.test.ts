import { describe, expect, it } from 'vitest'
import { maxRestarts, runningWorld, T0, World } from '../../support/operator-world.ts'

describe('activeDeadlineSeconds', () => {
  it('ends the job when it is over, also in the middle of a back-off', () => {
    const world = runningWorld({ ...maxRestarts(3), activeDeadlineSeconds: 100 })
    world.wait(95)
    world.end('gpt-worker-0', { exitCode: 70 })
    world.settle()
    expect(world.status.state).toBe('Restarting')
    expect(world.plan().requeueAt).toBe(T0 + 100_000)
    world.wait(5)
    expect(world.settle()[0]).toBe(
      'write Failed, ActiveDeadlineExceeded: the job was active for activeDeadlineSeconds, 100 s',
    )
    expect(world.status.lastFailure).toMatchObject({ podName: 'gpt-worker-0' })
    expect(world.status.nextRestartTime).toBeUndefined()
  })

  it('takes the pods away that still run', () => {
    const world = runningWorld({ activeDeadlineSeconds: 100 })
    world.wait(100)
    expect(world.settle().slice(1)).toEqual([
      'delete Pod gpt-worker-0: the job is finished',
      'delete Pod gpt-worker-1: the job is finished',
    ])
  })

  it('starts anew with a job that is resumed', () => {
    const world = runningWorld({ activeDeadlineSeconds: 100 })
    world.wait(90)
    world.edit({ suspend: true })
    world.settle()
    world.gone()
    world.wait(1000)
    world.settle()
    expect(world.status.state).toBe('Suspended')
    world.edit({ suspend: false })
    world.settle()
    world.wait(99)
    world.settle()
    expect(world.status.state).toBe('Starting')
    world.wait(1)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'ActiveDeadlineExceeded' })
  })

  it('does not take back what was reached in time', () => {
    const world = runningWorld({ activeDeadlineSeconds: 100 })
    world.wait(100)
    for (const name of world.pods.keys()) world.end(name, { exitCode: 0 })
    world.settle()
    expect(world.status.state).toBe('Complete')
  })
})

describe('podTerminationTimeoutSeconds', () => {
  const spec = { ...maxRestarts(3), podTerminationTimeoutSeconds: 30 }

  it('takes a pod away by force whose node is gone, and the gang is made again', () => {
    const world = runningWorld(spec)
    world.remove('gpt-worker-1', { reason: 'DeletionByTaintManager', message: 'node-1 is not ready' })
    world.settle()
    world.pods.delete('gpt-worker-0')
    world.wait(89)
    expect(world.settle()[0]).toBe(
      'write Restarting, WaitingForPods: waiting for pod gpt-worker-1 on node node-1 to be gone',
    )
    expect(world.plan().requeueAt).toBe(T0 + 90_000)
    world.wait(1)
    expect(world.settle().slice(0, 2)).toEqual([
      'delete Pod gpt-worker-1 by force: it does not end',
      'write Restarting, PodForceDeleted: pod gpt-worker-1 on node node-1 did not end within podTerminationTimeoutSeconds, 30 s, after its grace period: deleted by force',
    ])
    expect(world.status).toMatchObject({ state: 'Starting', attempt: 2, restarts: 1 })
  })

  it('also holds for a suspended, a finished and a deleted job', () => {
    const force = ['gpt-worker-0', 'gpt-worker-1'].map(name => `delete Pod ${name} by force: it does not end`)
    const suspended = runningWorld(spec)
    suspended.edit({ suspend: true })
    suspended.settle()
    suspended.wait(90)
    expect(suspended.settle().slice(0, 2)).toEqual(force)

    const finished = runningWorld({ ...spec, activeDeadlineSeconds: 1 })
    finished.wait(1)
    finished.settle()
    finished.wait(90)
    expect(finished.settle()).toEqual(force)

    const deleted = runningWorld(spec)
    deleted.job.metadata.deletionTimestamp = new Date(T0).toISOString()
    deleted.remove('gpt-worker-0')
    deleted.remove('gpt-worker-1')
    expect(deleted.settle()).toEqual([])
    expect(deleted.plan().requeueAt).toBe(T0 + 90_000)
    deleted.wait(90)
    expect(deleted.settle().slice(0, 2)).toEqual(force)
  })

  it('is never over where it is not set', () => {
    const world = runningWorld(maxRestarts(3))
    world.remove('gpt-worker-1')
    world.settle()
    world.wait(1_000_000)
    world.settle()
    expect(world.status).toMatchObject({ state: 'Restarting', reason: 'WaitingForPods' })
    expect(world.plan().requeueAt).toBeUndefined()
  })
})

/** A job of which rank 0 failed for good, and rank 1 still runs. */
function failedWorld(spec: Record<string, unknown>): World {
  const world = runningWorld({ ...maxRestarts(0), ...spec })
  world.end('gpt-worker-0', { exitCode: 70 })
  return world
}

describe('cleanPodPolicy', () => {
  it.each([
    ['Running', ['gpt-worker-1']],
    ['All', ['gpt-worker-0', 'gpt-worker-1']],
    ['None', []],
  ])('%s deletes %j', (cleanPodPolicy, names) => {
    const deleted = names.map(name => `delete Pod ${name}: the job is finished`)
    expect(failedWorld({ cleanPodPolicy }).settle().slice(1)).toEqual(deleted)
  })
})

describe('ttlSecondsAfterFinished', () => {
  it('deletes the job that long after its end', () => {
    const world = failedWorld({ ttlSecondsAfterFinished: 60 })
    world.settle()
    expect(world.status.state).toBe('Failed')
    expect(world.plan().requeueAt).toBe(T0 + 60_000)
    world.wait(59)
    expect(world.settle()).toEqual([])
    world.wait(1)
    expect(world.settle()).toEqual(['delete the job: it was finished 60 s ago'])
  })

  it('0: at once', () => {
    const world = failedWorld({ ttlSecondsAfterFinished: 0 })
    expect(world.settle()).toContain('delete the job: it was finished 0 s ago')
  })

  it('can be set when the job is over', () => {
    const world = failedWorld({})
    world.settle()
    world.wait(10)
    world.edit({ ttlSecondsAfterFinished: 20 })
    expect(world.plan().requeueAt).toBe(T0 + 20_000)
  })
})

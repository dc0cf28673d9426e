// Tests of when a job is complete: by the records of its workers, whatever its spec says by then.

import { describe, expect, it } from 'vitest'
import { recordOf, runningWorld, World } from '../../../support/operator-world.ts'

const VOLUME = { checkpoint: { volume: { persistentVolumeClaim: { claimName: 'c' } } } }
const raise = (world: World, steps: number) => world.edit({ training: { steps } })
const writes = (world: World) => world.changes().filter(sentence => sentence.startsWith('write'))
const RAISED =
  'write Restarting, StepsRaised: training.steps was raised from 100 to 500: the gang starts again from its last checkpoint'

/** The steps that each pod was created for. */
const told = (world: World) =>
  [...world.pods.values()].map(({ metadata }) => `${metadata.name} ${metadata.labels?.['scmoe.dev/steps']}`)

/** The pods that were told to stop end, and the next ones become ready. */
function restarted(world: World): void {
  world.settle()
  world.gone()
  world.settle()
  for (const name of world.pods.keys()) world.ready(name)
  world.settle()
}
function finish(world: World): string[] {
  for (const name of world.pods.keys()) world.end(name, { exitCode: 0 })
  return writes(world)
}

describe('steps that are raised', () => {
  // Seen failing without the policy: the job was Complete with "all 2 workers did 500 steps".
  it('while the gang runs start it again from its checkpoint, which counts as no restart, and are trained', () => {
    const world = runningWorld(VOLUME)
    raise(world, 500)
    expect(writes(world)[0]).toBe(RAISED)
    restarted(world)
    expect(world.status).toMatchObject({ state: 'Running', attempt: 2, restarts: 0, restartsCountTowardsMax: 0 })
    expect(told(world)).toEqual(['gpt-worker-0 500', 'gpt-worker-1 500'])
    expect(finish(world)).toEqual(['write Complete, AllWorkersSucceeded: all 2 workers reached step 500'])
  })

  it('twice are trained to the last number', () => {
    const world = runningWorld(VOLUME)
    raise(world, 300)
    world.step()
    raise(world, 500)
    restarted(world)
    expect(told(world)).toEqual(['gpt-worker-0 500', 'gpt-worker-1 500'])
    expect(world.status).toMatchObject({ state: 'Running', attempt: 2 })
  })

  it.each([0, 1, 2])('while the last step is trained, and %d workers have ended, are trained all the same', ended => {
    const world = runningWorld(VOLUME)
    for (const name of [...world.pods.keys()].slice(0, ended)) world.end(name, { exitCode: 0 })
    raise(world, 500)
    expect(writes(world)[0]).toBe(RAISED)
    restarted(world)
    expect(finish(world)).toEqual(['write Complete, AllWorkersSucceeded: all 2 workers reached step 500'])
  })

  it('while a pod that had ended is gone already are trained, too', () => {
    const world = runningWorld(VOLUME)
    for (const name of world.pods.keys()) world.end(name, { exitCode: 0 })
    world.vanish('gpt-worker-0')
    raise(world, 500)
    expect(writes(world)[0]).toBe(RAISED)
  })

  it('while half of the pods are made give all pods the same number', () => {
    const world = new World(VOLUME)
    world.step({ actions: 3, write: false })
    expect(told(world)).toEqual(['gpt-worker-0 100'])
    raise(world, 500)
    restarted(world)
    expect(told(world)).toEqual(['gpt-worker-0 500', 'gpt-worker-1 500'])
  })

  it('while the job is suspended or waits for its back-off are in its next pods, without another restart', () => {
    const suspended = runningWorld(VOLUME)
    suspended.edit({ suspend: true })
    suspended.settle()
    suspended.gone()
    raise(suspended, 500)
    expect(writes(suspended).filter(sentence => sentence.includes('StepsRaised'))).toEqual([])
    suspended.edit({ suspend: false })
    restarted(suspended)
    expect(told(suspended)).toEqual(['gpt-worker-0 500', 'gpt-worker-1 500'])
    const failed = runningWorld(VOLUME)
    failed.end('gpt-worker-0', { exitCode: 1 })
    failed.settle()
    raise(failed, 500)
    expect(writes(failed).filter(sentence => sentence.includes('StepsRaised'))).toEqual([])
    failed.wait(20)
    restarted(failed)
    expect(told(failed)).toEqual(['gpt-worker-0 500', 'gpt-worker-1 500'])
    expect(failed.status).toMatchObject({ state: 'Running', attempt: 2, restarts: 1 })
  })

  it('of an elastic gang leave it its size', () => {
    const world = new World({ workers: { replicas: 4, minReplicas: 1 }, ...VOLUME })
    world.room = 2
    world.settle()
    world.wait(301)
    restarted(world)
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2 } })
    raise(world, 500)
    restarted(world)
    expect(world.status).toMatchObject({ workers: { desired: 2 } })
    expect(told(world).slice(0, 2)).toEqual(['gpt-worker-0 500', 'gpt-worker-1 500'])
  })

  it('are found in the records of pods that an older operator made without the label', () => {
    const world = runningWorld(VOLUME)
    for (const [name, { metadata }] of world.pods) {
      world.end(name, { exitCode: 0 })
      metadata.labels = { ...metadata.labels }
      Reflect.deleteProperty(metadata.labels, 'scmoe.dev/steps')
    }
    raise(world, 500)
    expect(writes(world)[0]).toBe(RAISED)
  })
})

describe('a worker that ends with exit code 0', () => {
  const pod = (world: World) => world.pods.get('gpt-worker-0') ?? expect.fail('no such pod')
  const record = (world: World, change: object) => {
    const { progress } = JSON.parse(recordOf(pod(world), new Date(world.now))) as { progress: object }
    return JSON.stringify({ progress: { ...progress, ...change } })
  }

  // Seen failing when the exit code alone counted.
  it('without a record of its steps has failed, and is told what to check', () => {
    for (const message of ['', 'all done', JSON.stringify({ progress: 1 })]) {
      const world = runningWorld()
      world.end('gpt-worker-0', { exitCode: 0, message })
      world.settle()
      expect(world.status).toMatchObject({
        state: 'Restarting',
        lastFailure: { reason: 'StepsNotDone', podName: 'gpt-worker-0', exitCode: 0 },
      })
      expect(world.status.message).toContain('check that image and command of the template run the worker')
    }
  })

  it('before its last step has failed, and so has one whose record is of another job or attempt', () => {
    for (const [change, says] of [
      [{ step: 17 }, 'after step 17 of 100'],
      [{ jobUid: 'uid-0' }, 'left no record'],
      [{ attempt: 7 }, 'left no record'],
    ] as const) {
      const world = runningWorld()
      world.end('gpt-worker-0', { exitCode: 0, message: record(world, change) })
      world.settle()
      expect(world.status.lastFailure?.message).toContain(says)
    }
  })

  it('beyond the steps that were asked for has found a newer checkpoint, and the job says so', () => {
    const world = runningWorld({ workers: { replicas: 1 } })
    world.end('gpt-worker-0', { exitCode: 0, message: record(world, { step: 400 }) })
    expect(writes(world)).toEqual([
      'write Complete, AllWorkersSucceeded: the worker reached step 400, past the 100 that were asked for: the checkpoint was newer',
    ])
  })
})

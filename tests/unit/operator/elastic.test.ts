import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ENV } from '../../../crds/contract.ts'
import { brokenRules } from '../../../crds/rules.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { podName } from '../../../operator/objects/wire.ts'
import { validSizes } from '../../../operator/plan/elastic.ts'
import { attemptOf, failure, World } from '../../support/operator-world.ts'

const elastic = (minReplicas = 1) => ({
  workers: { replicas: 4, minReplicas },
  checkpoint: { volume: { emptyDir: {} } },
  scheduling: { timeoutSeconds: 100 },
  failurePolicy: { maxRestarts: 0 },
})

/**
 * Lets pods with a node become ready and pods that were told to stop go, until nothing changes any
 * more. Returns the sentences of all plans.
 */
function turn(world: World, { images = true } = {}): string[] {
  const done: string[] = []
  for (let i = 0; i < 6; i++) {
    done.push(...world.changes())
    world.gone()
    world.schedule()
    for (const [name, pod] of world.pods) {
      if (pod.spec?.nodeName === undefined || pod.status?.phase !== 'Pending') continue
      if (attemptOf(pod) === world.status.attempt) world.ready(name)
      else if (images) world.unready(name)
    }
    world.wait(1)
  }
  return done
}
const names = (world: World) => [...world.pods.keys()].toSorted()
const worldSizeOf = (world: World, name: string) => {
  const spec = JSON.stringify(world.made.get(name)?.['spec'])
  return new RegExp(`"${ENV.worldSize}","value":"(\\d+)"`).exec(spec)?.[1]
}

/** A job that asks for four workers, with room for `room`, after the scheduling time-out. */
function short(room: number, minReplicas?: number): World {
  const world = new World(elastic(minReplicas))
  world.room = room
  turn(world)
  world.wait(100)
  return world
}

describe('the sizes that a job can have', () => {
  const spec = (workers: object, more: object = {}) =>
    ScMoEJobSpec.parse({
      training: { steps: 1, globalBatchSequences: 24 },
      checkpoint: { volume: {} },
      workers,
      ...more,
    })
  const sizes = (of: ScMoEJobSpec) => validSizes({ spec: of, wanted: of.workers.replicas, name: 'gpt' })

  it('divide experts and batch, and are multiples of a given expertParallelSize', () => {
    expect(sizes(spec({ replicas: 8, minReplicas: 1 }))).toEqual([1, 2, 4, 8])
    expect(sizes(spec({ replicas: 12, minReplicas: 3 }, { model: { experts: 12 } }))).toEqual([3, 4, 6, 12])
    expect(sizes(spec({ replicas: 8, minReplicas: 1 }, { parallelism: { expertParallelSize: 2 } }))).toEqual([
      2, 4, 6, 8,
    ])
    expect(sizes(spec({ replicas: 8, minReplicas: 2 }, { model: { kind: 'Dense' } }))).toEqual([2, 3, 4, 6, 8])
  })

  it('are those that the API server would take for replicas', () => {
    const shape = fc.record({ replicas: fc.integer({ min: 1, max: 24 }), experts: fc.integer({ min: 2, max: 24 }) })
    const property = fc.property(shape, ({ replicas, experts }) => {
      const of = spec({ replicas, minReplicas: 1 }, { model: { experts } })
      for (let n = 1; n <= replicas; n++) {
        const broken = brokenRules({ ...of, workers: { ...of.workers, replicas: n } }, 'gpt')
        expect(sizes(of).includes(n)).toBe(broken.length === 0)
      }
    })
    fc.assert(property, { numRuns: 100 })
  })
})

describe('a gang without room for all', () => {
  it('starts as large as fits and is valid, and says why', () => {
    const world = short(3)
    expect(turn(world)).toEqual(
      expect.arrayContaining([
        'write Queued, ScaledDown: 3 of 4 workers had nodes after 100 s: the gang starts with 2; gpt-worker-3: 0/1 nodes are available',
        'create PodDisruptionBudget gpt',
        'write Running, AllWorkersReady: all 2 workers are ready; 4 were asked for',
      ]),
    )
    expect(world.status).toMatchObject({ attempt: 2, restarts: 0, workers: { desired: 2, ready: 2 } })
    expect(names(world)).toEqual(['gpt-worker-0', 'gpt-worker-1'])
    expect(worldSizeOf(world, 'gpt-worker-1')).toBe('2')
  })

  it('never starts smaller than minReplicas: it is queued with the least that may be', () => {
    const world = short(1, 2)
    turn(world)
    expect(world.status).toMatchObject({ state: 'Queued', workers: { desired: 2 } })
    world.wait(100)
    expect(turn(world).find(sentence => sentence.includes('SchedulingTimeout'))).toContain('1 of 2 workers had nodes')
    expect(world.status.workers?.desired).toBe(2)
  })

  it('tries one size after the other where the scheduler places all or none', () => {
    const world = short(0)
    turn(world)
    expect(world.status.workers?.desired).toBe(2)
    world.wait(100)
    turn(world)
    expect(world.status.workers?.desired).toBe(1)
    world.wait(1000)
    turn(world)
    expect(world.status).toMatchObject({ state: 'Queued', attempt: 3, restarts: 0, workers: { desired: 1 } })
  })

  it('keeps its size when it fails', () => {
    const world = short(2)
    world.job.spec['failurePolicy'] = { maxRestarts: 3 }
    turn(world)
    world.end('gpt-worker-1', { exitCode: 70, message: failure(1, 'internal', 'boom') })
    world.wait(20)
    turn(world)
    world.wait(20)
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', restarts: 1, workers: { desired: 2, ready: 2 } })
  })

  it('asks for all again when it is resumed', () => {
    const world = short(2)
    turn(world)
    world.edit({ suspend: true })
    turn(world)
    expect(world.status.workers?.desired).toBe(0)
    world.room = 4
    world.edit({ suspend: false })
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 4, ready: 4 } })
  })
})

describe('a gang that could be larger', () => {
  /** A gang that runs with two workers and may try to grow. */
  function two(): World {
    const world = short(2)
    turn(world)
    world.wait(100)
    turn(world)
    return world
  }

  it('asks for the missing nodes while it runs on, with pods that count for nothing', () => {
    const world = two()
    expect(names(world)).toEqual(['gpt-worker-0', 'gpt-worker-1', 'gpt-worker-2', 'gpt-worker-3'])
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2, ready: 2, active: 2 } })
    world.wait(10_000)
    world.lastAnswer = { attempt: world.status.attempt ?? 0, step: 1, at: world.now }
    expect(world.changes()).toEqual([])
  })

  it('starts again with all when there is room for all', () => {
    const world = two()
    world.room = 4
    expect(turn(world)).toEqual(
      expect.arrayContaining([
        'write Restarting, ScaledUp: there are nodes for 4 workers, 2 until now: the gang starts again with 4 from the last checkpoint',
        'write Running, AllWorkersReady: all workers are ready',
      ]),
    )
    expect(world.status).toMatchObject({ restarts: 0, workers: { desired: 4, ready: 4 } })
    expect(new Set(names(world).map(name => worldSizeOf(world, name)))).toEqual(new Set(['4']))
  })

  it('is not stopped for nodes on which no worker can start', () => {
    const world = two()
    world.room = 4
    turn(world, { images: false })
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2, ready: 2 } })
    world.wait(100)
    world.lastAnswer = { attempt: world.status.attempt ?? 0, step: 1, at: world.now }
    turn(world, { images: false })
    expect(names(world)).toEqual(['gpt-worker-0', 'gpt-worker-1'])
  })

  // Seen failing with workers compared with the pods' label of ranks: probes were taken for stale.
  it('grows also where a worker has several ranks', () => {
    const world = new World({ ...elastic(), workers: { replicas: 2, minReplicas: 1, gpusPerWorker: 2 } })
    world.room = 1
    turn(world)
    world.wait(100)
    turn(world)
    expect(world.status.workers).toMatchObject({ desired: 1, ready: 1 })
    world.wait(100)
    world.room = 2
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', restarts: 0, workers: { desired: 2, ready: 2 } })
  })

  it('gives back in time what is not enough, and asks again later', () => {
    const world = two()
    world.room = 3
    turn(world)
    world.wait(100)
    world.lastAnswer = { attempt: world.status.attempt ?? 0, step: 1, at: world.now }
    expect(turn(world)).toEqual(expect.arrayContaining(['delete Pod gpt-worker-2: it found no room for a larger gang']))
    expect(names(world)).toEqual(['gpt-worker-0', 'gpt-worker-1'])
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2 } })
    world.wait(100)
    world.lastAnswer = { attempt: world.status.attempt ?? 0, step: 2, at: world.now }
    turn(world)
    expect(names(world)).toHaveLength(4)
  })

  it('grows in part where the rest does not come in time', () => {
    const world = short(1)
    turn(world)
    expect(world.status.workers?.desired).toBe(1)
    world.wait(100)
    world.room = 3
    turn(world)
    world.wait(100)
    world.lastAnswer = { attempt: world.status.attempt ?? 0, step: 1, at: world.now }
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2, ready: 2 } })
  })

  it('takes its requests along when it is suspended', () => {
    const world = two()
    world.edit({ suspend: true })
    turn(world)
    expect(names(world)).toEqual([])
  })

  it('takes them along when it fails, and they are no part of the next attempt', () => {
    const world = two()
    world.job.spec['failurePolicy'] = { maxRestarts: 3 }
    world.end('gpt-worker-0', { exitCode: 70 })
    world.changes()
    world.wait(20)
    world.changes()
    expect([...world.pods.values()].every(({ metadata }) => metadata.deletionTimestamp !== undefined)).toBe(true)
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', restarts: 1, workers: { desired: 2, ready: 2 } })
  })
})

describe('kubectl scale', () => {
  it('to fewer starts the gang again at once', () => {
    const world = new World(elastic())
    turn(world)
    world.edit({ workers: { replicas: 2, minReplicas: 1 } })
    expect(turn(world)).toContain(
      'write Restarting, ScaledDown: workers.replicas is now 2: the gang of 4 starts again with 2 from the last checkpoint',
    )
    expect(world.status).toMatchObject({ state: 'Running', restarts: 0, workers: { desired: 2, ready: 2 } })
    expect(names(world)).toEqual(['gpt-worker-0', 'gpt-worker-1'])
  })

  it('to more starts it again when there are nodes for more', () => {
    const world = new World({ ...elastic(), workers: { replicas: 1, minReplicas: 1 } })
    world.room = 1
    turn(world)
    world.edit({ workers: { replicas: 2, minReplicas: 1 } })
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 1 } })
    world.room = 2
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2, ready: 2 } })
  })

  it('while the pods are being made leaves none with an old idea of how many there are', () => {
    const world = new World(elastic())
    world.step({ actions: 4, write: false })
    expect(names(world)).toEqual([podName('gpt', 0), podName('gpt', 1)])
    world.edit({ workers: { replicas: 2, minReplicas: 1 } })
    turn(world)
    expect(world.status).toMatchObject({ state: 'Running', workers: { desired: 2 } })
    expect(new Set(names(world).map(name => worldSizeOf(world, name)))).toEqual(new Set(['2']))
  })
})

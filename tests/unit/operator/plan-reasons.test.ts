import { beforeEach, describe, expect, it } from 'vitest'
import { refusedStatus } from '../../../operator/plan/status.ts'
import { maxRestarts, runningWorld, World } from '../../support/operator-world.ts'

const condition = (world: World, type: string) => world.status.conditions?.find(each => each.type === type)?.status

describe('why a job does not start', () => {
  it('names pod and image, the same text for ErrImagePull and ImagePullBackOff', () => {
    const world = new World()
    world.settle()
    world.waiting('gpt-worker-1', 'ErrImagePull', 'manifest unknown')
    const expected = 'write Starting, ImagePull: gpt-worker-1 cannot pull image "worker:1": manifest unknown'
    expect(world.settle()[0]).toBe(expected)
    world.waiting(
      'gpt-worker-1',
      'ImagePullBackOff',
      'Back-off pulling image "worker:1": ErrImagePull: manifest unknown',
    )
    expect(world.settle()).toEqual([])
    expect(condition(world, 'WorkersReady')).toBe('False')
  })

  it("repeats the scheduler's words", () => {
    const world = new World()
    world.settle()
    world.unschedulable('gpt-worker-0', '0/3 nodes are available')
    expect(world.settle()[0]).toBe('write Queued, Unschedulable: gpt-worker-0: 0/3 nodes are available')
  })

  it("repeats the API server's words for pods that it refuses after a resume, and is suspended no more", () => {
    const world = new World({ suspend: true })
    world.settle()
    world.edit({ suspend: false })
    const refused = () => refusedStatus(world.job, { reason: 'CreateRefused', message: 'exceeded quota' }, world.now)
    world.job.status = { ...world.status, ...refused() }
    expect(world.status).toMatchObject({ state: 'Pending', reason: 'CreateRefused', message: 'exceeded quota' })
    expect(['Suspended', 'WorkersReady'].map(type => condition(world, type))).toEqual(['False', 'False'])
    expect(refused()).toBeUndefined()
  })

  it('names the field of a spec that cannot be read, and leaves what runs alone', () => {
    const world = runningWorld()
    world.edit({ training: { steps: 'many' } })
    const [sentence] = world.settle()
    expect(sentence).toContain('write Running, InvalidSpec: spec.training.steps')
    expect(world.pods.size).toBe(2)
    expect(condition(world, 'WorkersReady')).toBe('Unknown')
    expect(world.settle()).toEqual([])
  })
})

describe('hands off', () => {
  let world: World
  beforeEach(() => {
    world = new World()
  })

  it('a job that is being deleted', () => {
    world.job.metadata.deletionTimestamp = '2026-01-01T00:00:00Z'
    expect(world.settle()).toEqual([])
  })

  it('a job of another controller, whatever its spec', () => {
    world.edit({ managedBy: 'example.com/other', unknown: 1 })
    expect(world.settle()).toEqual([])
  })

  it('a Service that is as it should be, with more in it', () => {
    world.settle()
    world.service = { ...world.service, metadata: { name: 'gpt', ...world.service?.metadata, annotations: { a: 'b' } } }
    expect(world.settle()).toEqual([])
  })
})

describe('what was written by another version', () => {
  it('loses only the fields that cannot be read: the attempt goes on', () => {
    const world = runningWorld()
    world.end('gpt-worker-0', { exitCode: 1 })
    world.settle()
    world.wait(10)
    world.gone()
    world.settle()
    for (const name of world.pods.keys()) world.ready(name)
    const foreign: object = { ...world.status, state: 'Napping', workers: { what: 1 }, extra: true }
    Object.assign(world.job, { status: foreign })
    expect(world.plan().actions).toEqual([])
    expect(world.plan().status).toMatchObject({ state: 'Running', attempt: 2, restarts: 1, workers: { ready: 2 } })
  })

  it('without the count of restarts that count has had no other', () => {
    const world = runningWorld(maxRestarts(2))
    const { restartsCountTowardsMax: _, ...older } = { ...world.status, restarts: 2 }
    world.job.status = older
    world.end('gpt-worker-0', { exitCode: 1 })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Failed', reason: 'MaxRestartsExceeded', restartsCountTowardsMax: 2 })
  })
})

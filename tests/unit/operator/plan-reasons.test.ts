import { beforeEach, describe, expect, it } from 'vitest'
import { why } from '../../../cli/cluster/why.ts'
import { wordsOf } from '../../../operator/objects/pod-words.ts'
import type { Pod } from '../../../operator/objects/wire.ts'
import { refusedStatus } from '../../../operator/plan/status.ts'
import { failure, maxRestarts, runningWorld, World } from '../../support/operator-world.ts'

const condition = (world: World, type: string) => world.status.conditions?.find(each => each.type === type)?.status

type Status = NonNullable<Pod['status']>
const INIT = { initContainers: [{ name: 'fetch' }, { name: 'proxy', restartPolicy: 'Always' }] }
const says = (world: World, name: string, status: Status, spec?: Pod['spec']) => {
  const pod = world.pods.get(name)
  if (pod === undefined) throw new Error(`no pod ${name}`)
  Object.assign(pod, { status: { ...pod.status, ...status }, spec: { ...pod.spec, ...spec } })
}

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
    expect(world.plan().actions).toMatchObject([{ kind: 'apply', object: { kind: 'PodDisruptionBudget' } }])
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

describe('a worker that does not start', () => {
  const sentences = (status: Status, spec = INIT, podWords?: string): string => {
    const world = new World({ workers: { replicas: 1 }, startupDeadlineSeconds: 60 })
    world.settle()
    says(world, 'gpt-worker-0', { phase: 'Pending', ...status }, spec)
    if (podWords !== undefined) world.podWords.set(world.pods.get('gpt-worker-0')?.metadata.uid ?? '', podWords)
    world.settle()
    const told = `${world.status.state}, ${world.status.reason}: ${world.status.message}`
    world.wait(60)
    world.settle()
    expect(world.status.lastFailure?.message).toContain(world.status.reason && told.split(': ').slice(1).join(': '))
    return told
  }
  const running = (name: string, more = {}) => ({ name, state: { running: {} }, ...more })
  const ENDED = { name: 'fetch', state: { terminated: { exitCode: 0 } } }
  const waiting = (name: string, reason: string, message = '') => ({
    name,
    image: 'x:1',
    state: { waiting: { reason, message } },
  })

  it('says which init container has not ended, and which sidecar is not up', () => {
    const worker = [waiting('worker', 'PodInitializing')]
    const init = (...initContainerStatuses: Status['initContainerStatuses'] & object) =>
      sentences({ initContainerStatuses, containerStatuses: worker })
    expect(init(running('fetch'), waiting('proxy', 'PodInitializing'))).toBe(
      'Starting, InitContainers: gpt-worker-0: init container fetch has not ended',
    )
    expect(init(ENDED, running('proxy', { started: false }))).toBe(
      'Starting, InitContainers: gpt-worker-0: the startupProbe of sidecar proxy has not succeeded',
    )
    expect(init(ENDED, waiting('proxy', 'CrashLoopBackOff'))).toBe(
      'Starting, InitContainers: gpt-worker-0: container proxy ends again and again',
    )
    expect(init(ENDED, waiting('proxy', 'ErrImagePull', 'not found'))).toBe(
      'Starting, ImagePull: gpt-worker-0 cannot pull image "x:1": not found',
    )
  })

  it('says why a volume is not mounted, with the words of the event', () => {
    const words = 'FailedAttachVolume: Multi-Attach error for volume "data"'
    const containerStatuses = [waiting('worker', 'ContainerCreating')]
    expect(sentences({ containerStatuses }, { initContainers: [] }, words)).toBe(
      `Starting, VolumeMount: gpt-worker-0: ${words}`,
    )
    const summary = 'Unable to attach or mount volumes: unmounted volumes=[data]: timed out'
    const event = (reason: string, note: string) => ({ type: 'Warning', reason, note })
    expect(
      wordsOf([
        event('FailedMount', summary),
        event('FailedMount', 'configmap "x" not found'),
        event('FailedScheduling', 'no room'),
      ]),
    ).toBe('FailedMount: configmap "x" not found')
    expect(wordsOf([event('FailedMount', summary), event('FailedAttachVolume', 'Multi-Attach')])).toBe(
      'FailedAttachVolume: Multi-Attach',
    )
    expect(wordsOf([{ type: 'Normal', reason: 'Pulling', note: 'x' }])).toBeUndefined()
  })

  it('is not held up by the image of a container that it does not wait for', () => {
    const world = new World({ workers: { replicas: 1 } })
    world.settle()
    const containerStatuses = [running('worker', { ready: true }), waiting('log-shipper', 'ImagePullBackOff')]
    says(world, 'gpt-worker-0', { phase: 'Running', containerStatuses })
    world.settle()
    expect(world.status).toMatchObject({ state: 'Running', reason: 'AllWorkersReady' })
  })

  it('has no log that `scmoe why` could point to', () => {
    const world = new World()
    world.settle()
    const said = () => why({ job: world.job, pods: [...world.pods.values()], now: world.now })
    expect(said()).not.toContain('scmoe logs')
    world.ready('gpt-worker-0')
    world.settle()
    expect(said()).toContain('scmoe logs')
  })

  it('gets each advice of `scmoe why` once', () => {
    const world = runningWorld(maxRestarts(0))
    world.end('gpt-worker-1', { exitCode: 64, message: failure(1, 'badConfig', 'no') })
    world.settle()
    world.job.status = { ...world.status, reason: 'StartupDeadlineExceeded', state: 'Restarting' }
    Object.assign(world.job.status.lastFailure ?? {}, { reason: 'StartupDeadlineExceeded' })
    const text = why({ job: world.job, pods: [], now: world.now })
    expect(text.match(/Fix the cause that the message names/g)).toHaveLength(1)
  })
})

describe('pods that nobody owns', () => {
  it('of a living job are its own, and get their owner back', () => {
    const world = runningWorld()
    const pod = world.pods.get('gpt-worker-0')
    if (pod !== undefined) pod.metadata = { ...pod.metadata, ownerReferences: [] }
    expect(world.plan().actions).toMatchObject([
      {
        kind: 'apply',
        object: { kind: 'Pod', metadata: { name: 'gpt-worker-0', ownerReferences: [{ uid: 'uid-1' }] } },
      },
    ])
    expect(world.plan().status).toBeUndefined()
  })

  it('of an earlier job that was deleted with --cascade=orphan are named, and not waited for without a word', () => {
    const world = runningWorld()
    for (const pod of world.pods.values()) pod.metadata = { ...pod.metadata, ownerReferences: [] }
    Object.assign(world.job, { metadata: { ...world.job.metadata, uid: 'uid-2' }, status: undefined })
    world.settle()
    expect(world.status).toMatchObject({
      state: 'Pending',
      reason: 'NameTaken',
      message: "Pod gpt-worker-0 exists and is not this job's: delete it, or create the job under another name",
    })
    expect(world.pods.size).toBe(2)
  })

  it('that have ended but are kept by the finalizers of others are named with these', () => {
    const world = runningWorld(maxRestarts(3))
    const pod = world.pods.get('gpt-worker-0')
    if (pod !== undefined) pod.metadata = { ...pod.metadata, finalizers: ['example.com/audit'] }
    world.end('gpt-worker-0', { exitCode: 70 })
    world.settle()
    world.vanish('gpt-worker-1')
    world.wait(20)
    world.settle()
    expect(world.status).toMatchObject({
      reason: 'WaitingForPods',
      message: expect.stringContaining('its finalizers keep it: example.com/audit'),
    })
  })
})

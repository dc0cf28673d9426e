// Tests of what ends or holds up pods beside their workers, against a real API server with the real
// controllers for quotas and budgets. How a kubelet reports it is in tests/cluster/ends.test.ts.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isCode } from '../../../operator/api/errors.ts'
import { type Pod, pathOf } from '../../../operator/objects/wire.ts'
import { Kubelet, progressOf } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { FaultProxy } from '../../support/api/proxy.ts'
import { json, Ranks } from '../../support/api/rank0.ts'

let api: Api
let operator: Operator
let kubelet: Kubelet
let ranks: Ranks
let proxy: FaultProxy
const folder = mkdtempSync(join(tmpdir(), 'scmoe-ends-'))

beforeAll(async () => {
  api = await Api.start()
  await api.control('resourcequota-controller', 'disruption-controller')
  // Every third answer comes with a date that is two hours ahead.
  proxy = await FaultProxy.start(await api.restricted(), join(folder, 'through'))
  proxy.dateAheadMilliseconds = 7_200_000
  operator = await Operator.start(join(folder, 'through'), '--worker-image=scmoe-worker:test')
  ranks = await Ranks.start()
  kubelet = new Kubelet(api.kube, {
    address: ({ metadata: { namespace = '' } }) => ranks.of({ name: namespace }).address,
  })
})
afterAll(async () => {
  await kubelet?.stop()
  await operator?.stop()
  ranks?.stop()
  await proxy?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

const spec = {
  workers: { replicas: 2 },
  failurePolicy: { maxRestarts: 0, backoff: { initialSeconds: 1, maxSeconds: 1 } },
}

async function gang(ns: Namespace, more: Record<string, unknown> = {}): Promise<[Pod, Pod]> {
  await ns.createJob('gpt', { ...spec, ...more })
  const [first, second] = await ns.gang(2)
  if (first === undefined || second === undefined) throw new Error('no gang')
  return [first, second]
}

async function running(ns: Namespace, more: Record<string, unknown> = {}): Promise<[Pod, Pod]> {
  const pods = await gang(ns, more)
  for (const pod of pods) await kubelet.ready(pod)
  await ns.state('gpt', 'Running')
  return pods
}

const container = (name: string, ready: boolean, state: object) => ({
  name,
  image: `${name}:1`,
  imageID: '',
  ready,
  restartCount: 0,
  state,
})
const ended = (exitCode: number, message = '') => ({ terminated: { exitCode, message, reason: 'Error' } })

it.concurrent('two gangs in a quota with room for one and a part of the other run one after the other', async () => {
  const ns = await api.namespace()
  const quota = { apiVersion: 'v1', kind: 'ResourceQuota', metadata: { name: 'team' }, spec: { hard: { pods: '4' } } }
  const path = `/api/v1/namespaces/${ns.name}/resourcequotas`
  await api.kube.call({ method: 'POST', path, body: quota })
  await waitFor('the quota to count', async () => {
    const { items } = await api.kube.call<{ items: { status?: { hard?: object } }[] }>({ method: 'GET', path })
    return items[0]?.status?.hard !== undefined
  })
  const more = { ...spec, workers: { replicas: 3 }, training: { steps: 100, globalBatchSequences: 6 } }
  const jobs = ['one', 'two']
  for (const name of jobs)
    await ns.createJob(name, { ...more, model: { experts: 6 }, scheduling: { timeoutSeconds: 2 } })
  await waitFor('both jobs to be complete', async () => {
    const pods = (await ns.list<Pod>('Pod')).filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    for (const name of jobs) {
      const members = pods.filter(({ metadata }) => metadata.name.startsWith(name))
      const alive = members.filter(({ status: { phase } = {} }) => phase === 'Pending' || phase === 'Running')
      if (alive.length < 3) continue
      const act = async (pod: Pod) =>
        pod.status?.phase === 'Running' ? kubelet.end(pod, { exitCode: 0 }) : kubelet.ready(pod)
      for (const pod of alive)
        await act(pod).catch((error: unknown) => {
          if (!isCode(error, 404, 409)) throw error
        })
    }
    const states = await Promise.all(jobs.map(async name => (await ns.job(name)).status?.state))
    return states.every(state => state === 'Complete')
  })
  // The status may have had this reason for a moment only.
  await waitFor('the event of the refusal', async () =>
    (await ns.events()).some(({ reason }) => reason === 'CreateRefused'),
  )
  for (const name of jobs) expect((await ns.job(name)).status).toMatchObject({ restarts: 0 })
})

it.concurrent('a drain goes on past a worker that is never ready, and still takes one worker at a time', async () => {
  const ns = await api.namespace()
  const [first, second] = await running(ns)
  const evict = async (name: string) => {
    const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace: ns.name } }
    const query = { dryRun: 'All' }
    return api.kube.call({ method: 'POST', path: `${pathOf('Pod', ns.name, name)}/eviction`, query, body }).then(
      () => 'evicted',
      (error: unknown) => (isCode(error, 429) ? 'kept' : Promise.reject(error)),
    )
  }
  const budget = async (minAvailable: number) =>
    waitFor(`a budget of ${minAvailable}`, async () => {
      type Budget = Pod & {
        spec: { minAvailable: number }
        status?: { observedGeneration?: number; currentHealthy?: number }
      }
      const [found] = await ns.list<Budget>('PodDisruptionBudget')
      const isSeen = found?.status?.observedGeneration === found?.metadata.generation
      const { ready } = (await ns.job('gpt')).status?.workers ?? {}
      return found?.spec.minAvailable === minAvailable && isSeen && found.status?.currentHealthy === ready
    })
  await budget(1)
  expect(await evict(first.metadata.name)).toBe('evicted')
  await kubelet.unready(second)
  await ns.state('gpt', 'Running', 'WorkersNotReady')
  await budget(0)
  expect(await evict(first.metadata.name)).toBe('evicted')
})

it.concurrent('a pod that its node refuses is a disruption, however often', async () => {
  const ns = await api.namespace()
  const [first] = await gang(ns)
  const message = 'Pod was rejected: Allocate failed due to no healthy devices present'
  await kubelet.says(first, { phase: 'Failed', reason: 'UnexpectedAdmissionError', message })
  const status = await ns.state('gpt', 'Restarting', 'PodDisrupted')
  expect(status).toMatchObject({ restarts: 1, restartsCountTowardsMax: 0 })
  expect(status.lastFailure).toMatchObject({ reason: 'UnexpectedAdmissionError', message })
  expect(await ns.gang(2, 2)).toHaveLength(2)
})

it.concurrent('an init container that fails is named, and its exit code is its own', async () => {
  const ns = await api.namespace()
  const rules = [{ action: 'FailJob', onExitCodes: { operator: 'In', values: [65], containerName: 'fetch' } }]
  const initContainers = [{ name: 'fetch', image: 'fetch:1' }]
  const workers = { replicas: 2, template: { spec: { initContainers, containers: [{ name: 'worker' }] } } }
  const [, second] = await gang(ns, { workers, failurePolicy: { ...spec.failurePolicy, rules } })
  await kubelet.says(second, {
    phase: 'Failed',
    initContainerStatuses: [container('fetch', false, ended(65, 'no such bucket'))],
    containerStatuses: [container('worker', false, { waiting: { reason: 'PodInitializing' } })],
  })
  const status = await ns.state('gpt', 'Failed', 'FailJobRule')
  expect(status.lastFailure).toMatchObject({
    podName: 'gpt-worker-1',
    container: 'fetch',
    exitCode: 65,
    reason: 'InitContainerFailed',
    message: 'init container fetch failed; its log ends: no such bucket',
  })
})

it.concurrent('a worker trains on beside a container that ended, and answers where network.httpPort says', async () => {
  const ns = await api.namespace()
  const [first, second] = await gang(ns, { network: { httpPort: ranks.port }, reporting: { intervalSeconds: 5 } })
  const { uid = '' } = (await ns.job('gpt')).metadata
  ranks.of(ns).says(json(JSON.stringify(progressOf(uid, { step: 7 }))))
  const address = ranks.of(ns).address
  for (const pod of [first, second])
    await kubelet.says(pod, {
      phase: 'Running',
      podIP: address,
      podIPs: [{ ip: address }],
      conditions: [{ type: 'Ready', status: 'False', reason: 'ContainersNotReady' }],
      containerStatuses: [container('worker', true, { running: {} }), container('setup', false, ended(0))],
    })
  const status = await ns.status('gpt', ({ state, progress }) => state === 'Running' && progress?.step === 7)
  expect(status.workers).toMatchObject({ ready: 2 })
})

it.concurrent('a volume that is not mounted is told with the words of its event', async () => {
  const ns = await api.namespace()
  const [first] = await gang(ns)
  const { name, uid } = first.metadata
  const note = 'Multi-Attach error for volume "data" Volume is already used by pod(s) other'
  const event = {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: 'attach', namespace: ns.name },
    eventTime: new Date().toISOString().replace('Z', '000Z'),
    reportingController: 'attachdetach-controller',
    reportingInstance: 'x',
    action: 'Attach',
    regarding: { apiVersion: 'v1', kind: 'Pod', namespace: ns.name, name, uid },
    reason: 'FailedAttachVolume',
    note,
    type: 'Warning',
  }
  await api.kube.call({ method: 'POST', path: `/apis/events.k8s.io/v1/namespaces/${ns.name}/events`, body: event })
  const waiting = { waiting: { reason: 'ContainerCreating' } }
  await kubelet.says(first, { phase: 'Pending', containerStatuses: [container('worker', false, waiting)] })
  const status = await ns.state('gpt', 'Starting', 'VolumeMount')
  expect(status.message).toBe(`gpt-worker-0: FailedAttachVolume: ${note}`)
})

it.concurrent('a pod whose owner somebody removed is still its job’s, and gets the owner back', async () => {
  const ns = await api.namespace()
  const [first] = await running(ns)
  const path = pathOf('Pod', ns.name, first.metadata.name)
  const body = { metadata: { ownerReferences: null } }
  await api.kube.call({ method: 'PATCH', path, body, contentType: 'application/merge-patch+json' })
  await waitFor('the owner to be back', async () => {
    const { metadata } = await api.kube.call<Pod>({ method: 'GET', path })
    return metadata.ownerReferences?.[0]?.name === 'gpt' && metadata.uid === first.metadata.uid
  })
  expect((await ns.job('gpt')).status).toMatchObject({ state: 'Running', restarts: 0 })
})

it.concurrent('a namespace that ends while pods are to be created is left in peace', async () => {
  const ns = await api.namespace()
  await ns.createJob('gpt', { ...spec, suspend: true })
  await ns.state('gpt', 'Suspended')
  // No controller removes what is in the namespace, so it stays in this state.
  await api.kube.call({ method: 'DELETE', path: `/api/v1/namespaces/${ns.name}` })
  await ns.patchJob('gpt', { suspend: false })
  await operator.logged('the namespace is being terminated')
  await sleep(1000)
  expect((await ns.job('gpt')).status).toMatchObject({ state: 'Suspended' })
})

it('a job seconds old is not ended for a third of answers whose date is two hours ahead', async () => {
  const ns = await api.namespace()
  await running(ns, { activeDeadlineSeconds: 3600, startupDeadlineSeconds: 1800 })
  const end = performance.now() + 8000
  while (performance.now() < end) {
    // Each change makes the operator look again.
    await ns.patchJob('gpt', { ttlSecondsAfterFinished: Math.floor(Math.random() * 1000) })
    await sleep(100)
  }
  expect((await ns.job('gpt')).status).toMatchObject({ state: 'Running', restarts: 0 })
})

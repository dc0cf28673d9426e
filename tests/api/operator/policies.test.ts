// Tests of deadlines, failure policy, ends and sizes of a job against a real API server. Times that
// lie long ago are written into the status, so that no test waits for them. All other waits run at
// the same time, each with a job and a namespace of its own.

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { LABEL } from '../../../crds/contract.ts'
import { isCode } from '../../../operator/api/errors.ts'
import { type KubeObject, type Pod, pathOf } from '../../../operator/objects/wire.ts'
import { Kubelet, progressOf } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { json, Ranks } from '../../support/api/rank0.ts'

let api: Api
let start: () => Promise<Operator>
let operator: Operator
let kubelet: Kubelet
let ranks: Ranks

beforeAll(async () => {
  api = await Api.start()
  ranks = await Ranks.start()
  const kubeconfig = await api.restricted()
  start = async () => Operator.start(kubeconfig, '--worker-image=scmoe-worker:test', `--progress-port=${ranks.port}`)
  operator = await start()
  kubelet = new Kubelet(api.kube, { address: ranks.addressOf })
})
afterAll(async () => {
  await kubelet?.stop()
  await operator?.stop()
  ranks?.stop()
  await api?.stop()
})

const twoWorkers = {
  workers: { replicas: 2 },
  reporting: { intervalSeconds: 5 },
  // The back-off is long enough for the state between two attempts to be seen.
  failurePolicy: { maxRestarts: 1, backoff: { initialSeconds: 3, maxSeconds: 3 } },
}
const LONG_AGO = '2026-01-01T00:00:00Z'

async function gang(ns: Namespace, spec: Record<string, unknown> = {}): Promise<[Pod, Pod]> {
  await ns.createJob('gpt', { ...twoWorkers, ...spec })
  const [first, second] = await ns.gang(2)
  if (first === undefined || second === undefined) throw new Error('no gang')
  return [first, second]
}

async function running(ns: Namespace, spec: Record<string, unknown> = {}): Promise<[Pod, Pod]> {
  const pods = await gang(ns, spec)
  for (const pod of pods) await kubelet.ready(pod)
  await ns.state('gpt', 'Running')
  return pods
}

/** Changes the status so that the job and its last step are old. */
async function longAgo(ns: Namespace): Promise<void> {
  const { status } = await ns.job('gpt')
  const conditions = status?.conditions?.map(each => ({ ...each, lastTransitionTime: LONG_AGO }))
  await ns.patchStatus('gpt', { conditions, progress: { lastStepTime: LONG_AGO } })
}

/** Makes rank 0 of the job report this step from now on. */
async function stepIs(ns: Namespace, step: number): Promise<void> {
  ranks.of(ns).says(json(JSON.stringify(progressOf((await ns.job('gpt')).metadata.uid ?? '', { step }))))
}

const reasons = async (ns: Namespace) => (await ns.events()).map(({ reason }) => reason)

it.concurrent('restarts a gang that answers but finishes no step, and says which step it was', async () => {
  const ns = await api.namespace()
  await running(ns)
  await stepIs(ns, 42)
  await ns.status('gpt', ({ progress }) => progress?.step === 42)
  await longAgo(ns)
  const status = await ns.state('gpt', 'Restarting', 'ProgressDeadlineExceeded')
  expect(status.lastFailure).toMatchObject({
    attempt: 1,
    podName: 'gpt-worker-0',
    reason: 'ProgressDeadlineExceeded',
    message: 'no step was finished for 600 s after step 42; all workers are ready',
  })
  expect(await ns.gang(2, 2)).toHaveLength(2)
  await waitFor('the event', async () => (await reasons(ns)).includes('ProgressDeadlineExceeded'))
})

it.concurrent('calls a job Stalled when half of the deadline is over, and Running with its next step', async () => {
  const ns = await api.namespace()
  await running(ns, { progressDeadlineSeconds: 604_800 })
  await stepIs(ns, 42)
  await ns.status('gpt', ({ progress }) => progress?.step === 42)
  const fourDays = new Date(Date.now() - 4 * 86_400_000).toISOString().replace(/\.\d+Z/, 'Z')
  const { status: before } = await ns.job('gpt')
  const conditions = before?.conditions?.map(each => ({ ...each, lastTransitionTime: fourDays }))
  await ns.patchStatus('gpt', { conditions, progress: { lastStepTime: fourDays } })
  const status = await ns.state('gpt', 'Stalled', 'NoStep')
  expect(status.conditions?.find(({ type }) => type === 'Progressing')).toMatchObject({ status: 'False' })
  await stepIs(ns, 43)
  await ns.state('gpt', 'Running')
})

it.concurrent('restarts a gang that is not ready in time, and names the worst pod', async () => {
  const ns = await api.namespace()
  const [first, second] = await gang(ns, { startupDeadlineSeconds: 8 })
  await kubelet.ready(first)
  await kubelet.waiting(second, 'ErrImagePull', 'manifest unknown')
  const status = await ns.state('gpt', 'Restarting', 'StartupDeadlineExceeded')
  expect(status.lastFailure).toMatchObject({
    podName: 'gpt-worker-1',
    message:
      '1 of 2 workers were ready 8 s after the first got its node; gpt-worker-1 cannot pull image "scmoe-worker:test": manifest unknown',
  })
})

it.concurrent('gives the nodes of a gang back when some of its workers find none, and queues it again', async () => {
  const ns = await api.namespace()
  const [first] = await gang(ns, { scheduling: { timeoutSeconds: 2 } })
  await kubelet.unschedulable(first, '0/1 nodes are available: 1 Insufficient cpu.')
  const status = await ns.state('gpt', 'Queued', 'SchedulingTimeout')
  expect(status).toMatchObject({ attempt: 2, restarts: 0 })
  expect(status.message).toContain('1 of 2 workers had nodes for 2 s')
  expect(await ns.gang(2, 2)).toHaveLength(2)
})

it.concurrent('does not count an eviction', async () => {
  const ns = await api.namespace()
  await running(ns, { failurePolicy: { ...twoWorkers.failurePolicy, maxRestarts: 0 } })
  await mayEvict(ns)
  const path = `${pathOf('Pod', ns.name, 'gpt-worker-1')}/eviction`
  const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: 'gpt-worker-1', namespace: ns.name } }
  await api.kube.call({ method: 'POST', path, body })
  const status = await ns.state('gpt', 'Restarting')
  expect(status).toMatchObject({ restarts: 1, restartsCountTowardsMax: 0 })
  expect(status.lastFailure).toMatchObject({ podName: 'gpt-worker-1', reason: 'EvictionByEvictionAPI' })
  expect(await ns.gang(2, 2)).toHaveLength(2)
})

/** Does the work of the disruption controller, which the test cluster does not run. */
async function mayEvict(ns: Namespace): Promise<void> {
  const [budget] = await ns.list<KubeObject>('PodDisruptionBudget')
  const counts = { disruptionsAllowed: 1, currentHealthy: 2, desiredHealthy: 1, expectedPods: 2 }
  await api.kube.call({
    method: 'PATCH',
    path: `${pathOf('PodDisruptionBudget', ns.name, 'gpt')}/status`,
    body: { status: { ...counts, observedGeneration: budget?.metadata.generation } },
    contentType: 'application/merge-patch+json',
  })
}

it.concurrent('fails for an exit code by a rule of the failure policy', async () => {
  const ns = await api.namespace()
  const rules = [{ action: 'FailJob', onExitCodes: { operator: 'In', values: [3] } }]
  const [first] = await running(ns, { failurePolicy: { ...twoWorkers.failurePolicy, rules } })
  await kubelet.end(first, { exitCode: 3 })
  const status = await ns.state('gpt', 'Failed', 'FailJobRule')
  expect(status).toMatchObject({ restarts: 0, lastFailure: { exitCode: 3 } })
  expect(status.message).toContain('failurePolicy.rules[0]')
})

it.concurrent('fails when it was active for too long, and is gone when its time after that is over, with all its pods', async () => {
  const ns = await api.namespace()
  const times = { activeDeadlineSeconds: 20, ttlSecondsAfterFinished: 6, cleanPodPolicy: 'All' }
  const [first] = await running(ns, times)
  await kubelet.end(first, { exitCode: 0 })
  const status = await ns.state('gpt', 'Failed', 'ActiveDeadlineExceeded')
  expect(status.conditions?.find(({ type }) => type === 'Failed')).toMatchObject({ status: 'True' })
  await waitFor('the pods to be gone', async () => (await ns.podNames()).length === 0)
  await waitFor('the job to be gone', async () => (await ns.list('ScMoEJob')).length === 0)
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(status.completionTime ?? '') + 6000)
})

it.concurrent('is made again when pods of a lost node do not end', async () => {
  const ns = await api.namespace()
  const template = { spec: { terminationGracePeriodSeconds: 1 } }
  await running(ns, { workers: { replicas: 2, template }, podTerminationTimeoutSeconds: 1 })
  kubelet.hanging.add(ns.name)
  await api.kube.call({ method: 'DELETE', path: pathOf('Pod', ns.name, 'gpt-worker-1') })
  expect(await ns.gang(2, 2)).toHaveLength(2)
  kubelet.hanging.delete(ns.name)
  await waitFor('the event', async () => (await reasons(ns)).includes('PodForceDeleted'))
})

const elastic = { workers: { replicas: 2, minReplicas: 1 }, checkpoint: { volume: { emptyDir: {} } } }

/**
 * Lets the probe start on its node, after which the gang restarts. A probe that was late is
 * replaced by another one.
 */
async function roomFor(ns: Namespace, name: string): Promise<void> {
  await waitFor(`${name} of the attempt that will never be, to start`, async () => {
    const pod = (await ns.list<Pod>('Pod')).find(
      ({ metadata, spec }) =>
        metadata.name === name && metadata.labels?.[LABEL.attempt] === '3' && spec?.nodeName !== undefined,
    )
    if (pod !== undefined)
      await kubelet.ready(pod).catch((error: unknown) => {
        if (!isCode(error, 404)) throw error
      })
    return (await ns.job('gpt')).status?.attempt === 4
  })
}

it.concurrent('starts with one worker where there is no room for two, and with two when there is', async () => {
  const ns = await api.namespace()
  const [, second] = await gang(ns, { ...elastic, scheduling: { timeoutSeconds: 2 } })
  await kubelet.unschedulable(second, '0/1 nodes are available: 1 Insufficient cpu.')
  const [alone] = await ns.gang(1, 2)
  await kubelet.ready(alone as Pod)
  const status = await ns.state('gpt', 'Running')
  expect(status).toMatchObject({ restarts: 0, workers: { desired: 1, ready: 1 } })
  await roomFor(ns, 'gpt-worker-1')
  expect(await ns.gang(2, 4)).toHaveLength(2)
  await waitFor('both events', async () => {
    const told = await ns.events()
    const why = told.find(({ reason }) => reason === 'ScaledDown')?.note
    return why?.includes('Insufficient cpu') && told.some(({ reason }) => reason === 'ScaledUp')
  })
})

it.concurrent('follows kubectl scale while it runs', async () => {
  const ns = await api.namespace()
  await running(ns, elastic)
  const scale = async (replicas: number) =>
    api.kube.call({
      method: 'PATCH',
      path: `${pathOf('ScMoEJob', ns.name, 'gpt')}/scale`,
      body: { spec: { replicas } },
      contentType: 'application/merge-patch+json',
    })
  await scale(1)
  const [alone] = await ns.gang(1, 2)
  await kubelet.ready(alone as Pod)
  expect(await ns.state('gpt', 'Running')).toMatchObject({ restarts: 0, workers: { desired: 1 } })
  await scale(2)
  await roomFor(ns, 'gpt-worker-1')
  for (const pod of await ns.gang(2, 4)) await kubelet.ready(pod)
  expect(await ns.state('gpt', 'Running')).toMatchObject({ restarts: 0, workers: { desired: 2, ready: 2 } })
})

// This test runs alone, because it stops the operator.
it('leaves a job alone whose rank 0 is ready, but cannot be asked', async () => {
  const ns = await api.namespace()
  await running(ns)
  await stepIs(ns, 7)
  await ns.status('gpt', ({ progress }) => progress?.step === 7)
  await operator.stop()
  ranks.of(ns).says(json('garbage'))
  await longAgo(ns)
  operator = await start()
  await ranks.of(ns).untilAsked(ranks.of(ns).asked.length + 1)
  await sleep(1000)
  expect((await ns.job('gpt')).status).toMatchObject({ state: 'Running', restarts: 0 })
})

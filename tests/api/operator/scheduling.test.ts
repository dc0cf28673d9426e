// Tests of one operator for each scheduling provider, with the permissions that the provider needs
// and no others. The real API server has the CRDs of all providers. It accepts all objects that the
// operators create, and waiting jobs repeat what the providers say.

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { z } from 'zod'
import type { ProviderName } from '../../../operator/objects/providers.ts'
import { type KubeObject, kindOf, type Pod, pathOf } from '../../../operator/objects/wire.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'

/** Version of Kueue whose CRDs are used. They are too large to be kept in this repository. */
const KUEUE = 'sigs.k8s.io/kueue@v0.17.0'
const KUEUE_KINDS = ['workloads', 'resourceflavors', 'clusterqueues', 'localqueues']
const GATE = 'kueue.x-k8s.io/admission'

let api: Api
const operators: Operator[] = []

beforeAll(async () => {
  api = await Api.start()
  const crds = [
    readFileSync('tests/schedulers/podgroups.scheduling.x-k8s.io.yaml', 'utf8'),
    readFileSync('tests/schedulers/podgroups.scheduling.volcano.sh.yaml', 'utf8'),
    ...(await kueueCrds()),
  ]
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
  for (const crd of crds) await api.kube.call({ method: 'POST', path, body: parse(crd) })
  await served('PodGroup.scheduling.x-k8s.io')
  await served('PodGroup.scheduling.volcano.sh')
  await served('Workload.kueue.x-k8s.io')
})
afterAll(async () => {
  await Promise.all(operators.map(async operator => operator.stop()))
  await api?.stop()
})

async function served(kind: Parameters<typeof pathOf>[0]): Promise<void> {
  await waitFor(`${kind} to be served`, async () =>
    api.kube.call<object>({ method: 'GET', path: pathOf(kind) }).catch(() => undefined),
  )
}

/** Reads Kueue's CRDs from its Go module, through the module cache. */
async function kueueCrds(): Promise<string[]> {
  const { stdout } = await promisify(execFile)('go', ['mod', 'download', '-json', KUEUE], {
    env: { ...process.env, GOFLAGS: '-mod=mod' },
  })
  const { Dir: folder }: { Dir: string } = JSON.parse(stdout)
  const file = (kind: string) => join(folder, `config/components/crd/bases/kueue.x-k8s.io_${kind}.yaml`)
  return KUEUE_KINDS.map(kind => readFileSync(file(kind), 'utf8'))
}

/** Starts an operator with this provider for one namespace. */
async function operatorFor(provider: ProviderName): Promise<Namespace> {
  const ns = await api.namespace()
  const flags = [`--scheduling-provider=${provider}`, `--watch-namespaces=${ns.name}`, '--worker-image=worker:1']
  operators.push(await Operator.start(await api.restricted(provider), ...flags))
  return ns
}

const two = { workers: { replicas: 2 } }
const specOf = (pod: Pod | undefined): Record<string, unknown> => Object.fromEntries(Object.entries(pod?.spec ?? {}))

/** Waits for the provider's object, which is created at the same time as the pods. */
async function group(ns: Namespace, name: string, kind: Parameters<typeof pathOf>[0]) {
  const path = pathOf(kind, ns.name, name)
  return waitFor(`${kind} ${name}`, async () =>
    api.kube.call<KubeObject & { spec: object }>({ method: 'GET', path }).catch(() => undefined),
  )
}

/** Sets the condition that a scheduler gives a pod that it cannot place. */
async function unschedulable(ns: Namespace, name: string, reason: string, message: string): Promise<void> {
  const lastTransitionTime = new Date().toISOString().replace(/\.\d+Z/, 'Z')
  const condition = { type: 'PodScheduled', status: 'False', reason, message, lastTransitionTime }
  await api.kube.call({
    method: 'PATCH',
    path: `${pathOf('Pod', ns.name, name)}/status`,
    body: { status: { conditions: [condition] } },
    contentType: 'application/strategic-merge-patch+json',
  })
}

async function setStatus(ns: Namespace, object: KubeObject, status: object, subresource: string): Promise<void> {
  const path = `${pathOf(kindOf(object), ns.name, object.metadata.name)}${subresource}`
  await api.kube.call({ method: 'PATCH', path, body: { status }, contentType: 'application/merge-patch+json' })
}

describe('coscheduling', () => {
  it('gets a PodGroup of all workers; it is repaired, and goes with the job', async () => {
    const ns = await operatorFor('coscheduling')
    const job = await ns.createJob('gpt', two)
    const [pod] = await ns.gang(2)
    expect(pod?.metadata.labels).toMatchObject({ 'scheduling.x-k8s.io/pod-group': 'gpt' })
    expect(specOf(pod)).toMatchObject({ schedulerName: 'scheduler-plugins-scheduler' })
    const made = await group(ns, 'gpt', 'PodGroup.scheduling.x-k8s.io')
    expect(made.spec).toEqual({ minMember: 2 })
    expect(made.metadata.ownerReferences).toMatchObject([{ uid: job.metadata.uid, controller: true }])
    const path = pathOf('PodGroup.scheduling.x-k8s.io', ns.name, 'gpt')
    const body = { spec: { minMember: 1 } }
    await api.kube.call({ method: 'PATCH', path, body, contentType: 'application/merge-patch+json' })
    await waitFor('the repair', async () => {
      const { spec } = await group(ns, 'gpt', 'PodGroup.scheduling.x-k8s.io')
      return JSON.stringify(spec) === JSON.stringify({ minMember: 2 })
    })
  })
})

describe('volcano', () => {
  it('gets a PodGroup in its queue, and the job says what Volcano says', async () => {
    const ns = await operatorFor('volcano')
    await ns.createJob('gpt', { ...two, scheduling: { queueName: 'team-a' } })
    const [pod] = await ns.gang(2)
    expect(pod?.metadata.annotations).toMatchObject({ 'scheduling.k8s.io/group-name': 'gpt' })
    expect(specOf(pod)).toMatchObject({ schedulerName: 'volcano' })
    const made = await group(ns, 'gpt', 'PodGroup.scheduling.volcano.sh')
    expect(made.spec).toEqual({ minMember: 2, queue: 'team-a' })
    const message = '2/2 tasks in gang unschedulable: pod group is not ready, 2 minAvailable, 2 Pending'
    const conditions = [{ type: 'Unschedulable', status: 'True', reason: 'NotEnoughResources', message }]
    await setStatus(ns, made, { phase: 'Inqueue', conditions }, '')
    await unschedulable(ns, 'gpt-worker-0', 'Unschedulable', 'pod group is not ready')
    // The message of the pod may be shown before that of the group.
    await ns.status('gpt', status => status.state === 'Queued' && status.message === `Volcano: ${message}`)
    expect((await ns.job('gpt')).status?.reason).toBe('Unschedulable')
  })
})

describe('kubernetes', () => {
  it('gets a Workload that pods refer to, and another one when the gang has another size', async () => {
    const ns = await operatorFor('kubernetes')
    const topology = [{ key: 'topology.kubernetes.io/zone' }]
    await ns.createJob('gpt', { ...two, scheduling: { constraints: { topology } } })
    const [pod] = await ns.gang(2)
    expect(specOf(pod)).toMatchObject({
      workloadRef: { name: 'gpt-2', podGroup: 'workers' },
      affinity: {
        podAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: [{ topologyKey: 'topology.kubernetes.io/zone' }],
        },
      },
    })
    const made = await group(ns, 'gpt-2', 'Workload.scheduling.k8s.io')
    expect(made.spec).toEqual({
      controllerRef: { apiGroup: 'scmoe.dev', kind: 'ScMoEJob', name: 'gpt' },
      podGroups: [{ name: 'workers', policy: { gang: { minCount: 2 } } }],
    })
    await unschedulable(ns, 'gpt-worker-1', 'Unschedulable', '0/1 nodes are available: 1 Insufficient cpu.')
    expect((await ns.state('gpt', 'Queued', 'Unschedulable')).message).toContain('gpt-worker-1: 0/1 nodes')
    await ns.patchJob('gpt', { suspend: true })
    await removed(ns)
    await ns.state('gpt', 'Suspended', 'Suspended')
    await ns.patchJob('gpt', { suspend: false, workers: { replicas: 1 } })
    const [alone] = await ns.gang(1, 2)
    expect(specOf(alone)).toMatchObject({ workloadRef: { name: 'gpt-1' } })
    expect((await group(ns, 'gpt-1', 'Workload.scheduling.k8s.io')).spec).toMatchObject({
      podGroups: [{ policy: { gang: { minCount: 1 } } }],
    })
  })
})

/** Waits until the pods are gone. Pods without a node go as soon as they are deleted. */
async function removed(ns: Namespace): Promise<void> {
  await waitFor('the pods to be gone', async () => (await ns.podNames()).length === 0)
}

describe('kueue', () => {
  it('gets a pod group in the queue of the job; the job says why it waits, and starts suspended like any other', async () => {
    const ns = await operatorFor('kueue')
    const labels = { 'kueue.x-k8s.io/queue-name': 'team-a' }
    await ns.createJob('gpt', { ...two, suspend: true }, labels)
    await ns.state('gpt', 'Suspended', 'Suspended')
    expect(await ns.podNames()).toEqual([])
    await ns.patchJob('gpt', { suspend: false })
    const [pod] = await ns.gang(2)
    const name = pod?.metadata.labels?.['kueue.x-k8s.io/pod-group-name'] ?? ''
    expect(name).toMatch(/^gpt-[0-9a-f]{5}-1$/)
    expect(pod?.metadata.labels).toMatchObject(labels)
    expect(pod?.metadata.annotations).toMatchObject({ 'kueue.x-k8s.io/pod-group-total-count': '2' })

    await unschedulable(ns, 'gpt-worker-0', 'SchedulingGated', `blocked by ${GATE}`)
    await ns.state('gpt', 'Queued', 'SchedulingGated')
    const podSets = [{ name: 'main', count: 2, template: { spec: { containers: [{ name: 'worker', image: 'w' }] } } }]
    const body = {
      apiVersion: 'kueue.x-k8s.io/v1beta2',
      kind: 'Workload',
      metadata: { name },
      spec: { queueName: 'team-a', podSets },
    }
    const path = pathOf('Workload.kueue.x-k8s.io', ns.name)
    const workload = await api.kube.call<KubeObject>({ method: 'POST', path, body })
    const message = 'insufficient unused quota for nvidia.com/gpu in flavor h100, 2 more needed'
    const lastTransitionTime = new Date().toISOString().replace(/\.\d+Z/, 'Z')
    const pending = { type: 'QuotaReserved', status: 'False', reason: 'Pending', message, lastTransitionTime }
    await setStatus(ns, workload, { conditions: [pending] }, '/status')
    await ns.status('gpt', status => status.reason === 'WaitingForQuota' && status.message === `Kueue: ${message}`)

    // Kueue keeps its finalizers until the group is over, and this group would never be over.
    for (const each of await ns.podNames()) await finalizers(ns, each, ['kueue.x-k8s.io/managed'])
    await ns.patchJob('gpt', { suspend: true })
    const left = async () => (await api.kube.call<{ items: KubeObject[] }>({ method: 'GET', path })).items
    await waitFor('the Workload to be deleted', async () => (await left()).length === 0)
    await ns.state('gpt', 'Suspended', 'Stopping')
    for (const each of await ns.podNames()) await finalizers(ns, each, null)
    await ns.state('gpt', 'Suspended', 'Suspended')
  })
})

describe('the example for Kueue', () => {
  it('has queues that Kueue takes, and a job that waits in them once it is resumed', async () => {
    const ns = await operatorFor('kueue')
    const queues = parseAllDocuments(readFileSync('examples/kueue/queues.yaml', 'utf8')).map(document =>
      z.looseObject({ kind: z.string() }).parse(document.toJS()),
    )
    for (const body of queues) {
      const place = body.kind === 'LocalQueue' ? `namespaces/${ns.name}/` : ''
      const path = `/apis/kueue.x-k8s.io/v1beta2/${place}${body.kind.toLowerCase()}s`
      // With strict validation the server refuses a field that Kueue does not know.
      await api.kube.call({ method: 'POST', path, body, query: { fieldValidation: 'Strict' } })
    }
    const job: unknown = parse(readFileSync('examples/07-queued-by-kueue.yaml', 'utf8'))
    await api.kube.call({ method: 'POST', path: pathOf('ScMoEJob', ns.name), body: job })
    await ns.state('queued', 'Suspended', 'Suspended')
    await ns.patchJob('queued', { suspend: false })
    const [pod] = await ns.gang(2)
    const queue = queues.find(({ kind }) => kind === 'LocalQueue')
    expect(queue?.['metadata']).toEqual({ name: pod?.metadata.labels?.['kueue.x-k8s.io/queue-name'] })
  })
})

async function finalizers(ns: Namespace, pod: string, wanted: string[] | null): Promise<void> {
  const body = { metadata: { finalizers: wanted } }
  const contentType = 'application/merge-patch+json'
  await api.kube.call({ method: 'PATCH', path: pathOf('Pod', ns.name, pod), body, contentType })
}

const CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'

async function uninstall(crd: string, collection: string): Promise<void> {
  await api.kube.call({ method: 'DELETE', path: `${CRDS}/${crd}` })
  await waitFor('the kind not to be served any more', async () =>
    api.kube.call({ method: 'GET', path: collection }).then(
      () => false,
      () => true,
    ),
  )
}

describe('a provider that is not installed', () => {
  // Seen failing with namespaces searched in the answer's text with its path: the status stayed
  // empty. Seen failing with the group and the pods created together: pods were there without it.
  it('is told in the status, and no pod is created without its group', async () => {
    const ns = await operatorFor('coscheduling')
    const kind = 'PodGroup.scheduling.x-k8s.io'
    await uninstall('podgroups.scheduling.x-k8s.io', pathOf(kind))
    await ns.createJob('gpt', two)
    const status = await ns.state('gpt', 'Pending', 'SchedulerMissing')
    expect(status.message).toContain('the API server does not serve scheduling.x-k8s.io/v1alpha1 PodGroup')
    expect(await ns.podNames()).toEqual([])

    const crd = readFileSync('tests/schedulers/podgroups.scheduling.x-k8s.io.yaml', 'utf8')
    await api.kube.call({ method: 'POST', path: CRDS, body: parse(crd) })
    await served(kind)
    await ns.patchJob('gpt', { reporting: { intervalSeconds: 20 } })
    await ns.gang(2)
    expect((await group(ns, 'gpt', kind)).spec).toMatchObject({ minMember: 2 })
  })

  it('ends the operator with what is missing', async () => {
    const collection = '/apis/scheduling.volcano.sh/v1beta1/podgroups'
    await uninstall('podgroups.scheduling.volcano.sh', collection)
    await expect(Operator.start(api.kubeconfig, '--scheduling-provider=volcano')).rejects.toThrow(
      `the scheduling provider is volcano, but the API server does not serve ${collection}: install the scheduler, or choose another provider`,
    )
  })
})

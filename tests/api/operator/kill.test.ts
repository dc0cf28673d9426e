// Test of operators that are killed. An operator keeps no state besides that of the API server,
// so a kill leaves only states that a write has left. Here each operator is killed after a single
// write, whose answer it does not get, and the next operator continues.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { ScMoEJobStatus } from '../../../crds/status.ts'
import type { KubeObject } from '../../../operator/objects/wire.ts'
import { Kubelet } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator } from '../../support/api/operator.ts'
import { FaultProxy, isAct } from '../../support/api/proxy.ts'

const MOST = 40
const folder = mkdtempSync(join(tmpdir(), 'scmoe-kill-'))
let api: Api
let proxy: FaultProxy
let kubelet: Kubelet
let ns: Namespace

beforeAll(async () => {
  api = await Api.start()
  proxy = await FaultProxy.start(api.kubeconfig, join(folder, 'kubeconfig'))
  kubelet = new Kubelet(api.kube, { autoReady: true })
  ns = await api.namespace()
})
afterAll(async () => {
  await kubelet?.stop()
  await proxy?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

/** The kind of a request: `POST pods`, `DELETE pods`, `PATCH status`. */
function kindOf(request: string): string {
  const [method, url = ''] = request.split(' ')
  const path = url.split('?')[0]?.split('/') ?? []
  return `${method} ${method === 'POST' || path.at(-1) === 'status' ? path.at(-1) : path.at(-2)}`
}

/**
 * An operator cannot see Secrets. Each one posts the job's Secret again, and is refused with 409,
 * which writes nothing.
 */
const isSecret = (request: string): boolean => request.includes('/secrets?')
let hasSecret = false

/**
 * Starts one operator after another and kills each after one write, until the job's status fits.
 * Returns the writes in order.
 */
async function killedAfterEach(fits: (status: ScMoEJobStatus) => boolean): Promise<string[]> {
  const writes: string[] = []
  while (writes.length < MOST) {
    proxy.heal()
    const last = proxy.lastRequest((method, url) => isAct(method, url) && !(hasSecret && isSecret(url)))
    const operator = await Operator.start(join(folder, 'kubeconfig'))
    const reached = await Promise.race([last, done(fits)])
    await operator.stop('SIGKILL')
    if (reached === undefined) return writes
    writes.push(reached)
    hasSecret ||= isSecret(reached)
  }
  throw new Error(`the job is not as it should be after ${MOST} writes: ${writes.join(', ')}`)
}

/** Resolves when the status has fitted, and nothing was written, for a while. */
async function done(fits: (status: ScMoEJobStatus) => boolean): Promise<undefined> {
  for (let quiet = 0; quiet < 15; quiet++) {
    await sleep(100)
    if (!fits((await ns.job('gpt')).status ?? {})) quiet = 0
  }
}

it('killed with SIGKILL after every single write of a life with a restart, operators finish it between them, and nothing is made twice', {
  timeout: 400_000,
}, async () => {
  const backoff = { initialSeconds: 1, maxSeconds: 1 }
  await ns.createJob('gpt', { workers: { replicas: 2 }, failurePolicy: { backoff } })
  const start = await killedAfterEach(({ state }) => state === 'Running')
  expect(start.map(kindOf)).toEqual(
    expect.arrayContaining(['POST pods', 'POST services', 'POST poddisruptionbudgets', 'PATCH status']),
  )
  const secretOf = async () => (await ns.list<KubeObject & { data: object }>('Secret')).map(({ data }) => data)
  const secret = await secretOf()
  const [first] = await ns.gang(2)
  if (first === undefined) throw new Error('no pod')
  await kubelet.end(first, { exitCode: 70 })
  const restart = await killedAfterEach(({ state, attempt }) => state === 'Running' && attempt === 2)
  expect(restart.map(kindOf)).toEqual(expect.arrayContaining(['PATCH status', 'DELETE pods', 'POST pods']))
  for (const pod of await ns.gang(2, 2)) await kubelet.end(pod, { exitCode: 0 })
  const end = await killedAfterEach(({ state }) => state === 'Complete')

  expect((await ns.job('gpt')).status).toMatchObject({
    state: 'Complete',
    attempt: 2,
    restarts: 1,
    lastFailure: { podName: 'gpt-worker-0', exitCode: 70 },
  })
  const all = [...start, ...restart, ...end].map(kindOf)
  const count = (kind: string) => all.filter(each => each === kind).length
  // There were two attempts of two pods, and the pods of the first were deleted. No pod, Service or
  // budget was created twice.
  expect([
    count('POST pods'),
    count('DELETE pods'),
    count('POST services'),
    count('POST poddisruptionbudgets'),
  ]).toEqual([4, 2, 1, 1])
  const owned = await Promise.all(
    (['Pod', 'Service', 'PodDisruptionBudget'] as const).map(async kind => ns.list<KubeObject>(kind)),
  )
  expect(owned.map(list => list.length)).toEqual([2, 1, 1])
  // All pods of the job have the text of one operator, whichever operators made them.
  expect(secret).toHaveLength(1)
  expect(await secretOf()).toEqual(secret)
  const names = (owned[0] ?? []).map(pod => JSON.stringify(pod).match(/"secretKeyRef":\{[^}]*\}/)?.[0])
  expect(new Set(names).size).toBe(1)
})

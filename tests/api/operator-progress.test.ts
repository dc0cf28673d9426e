// The operator asks rank 0 over real HTTP; whatever answers there, the status stays true and the operator stays alive.

import { createServer, type RequestListener, type Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { PROGRESS_MAX_BYTES } from '../../crds/contract.ts'
import { freePort } from '../free-port.ts'
import { Api, type Namespace, Operator, type StoredJob, waitFor } from './harness.ts'
import { Kubelet, progressOf } from './harness-kubelet.ts'

let api: Api
let operator: Operator
let kubelet: Kubelet
let server: Server
let answer: RequestListener
let ns: Namespace
let job: StoredJob
let asked = 0

beforeAll(async () => {
  api = await Api.start()
  const port = await freePort()
  server = createServer((request, response) => {
    asked++
    answer(request, response)
  })
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  operator = await Operator.start(api.kubeconfig, `--progress-port=${port}`)
  kubelet = new Kubelet(api.kube, { autoReady: true })
})
afterAll(async () => {
  await kubelet?.stop()
  await operator?.stop()
  server?.closeAllConnections()
  server?.close()
  await api?.stop()
})
beforeEach(async () => {
  answer = (_, response) => response.writeHead(503).end()
  ns = await api.namespace()
  job = await ns.createJob('gpt', { workers: { replicas: 2 }, reporting: { intervalSeconds: 5 } })
  await ns.state('gpt', 'Running')
})

const record = (extra: object = {}) => JSON.stringify(progressOf(job.metadata.uid ?? '', extra))
const json =
  (text: string): RequestListener =>
  (_, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(text)
const scrapes = async (result: string) => operator.metric('scmoejob_progress_scrapes_total', `result="${result}"`)

it('writes progress, throughput and checkpoint, at most once per interval', async () => {
  const figures = {
    lossMilli: 5200,
    tokensPerSecond: 4000,
    stepTimeMilliseconds: 250,
    communicationMilliseconds: 80,
    overlapPercent: 97,
  }
  const checkpoint = { lastCheckpointStep: 5, lastCheckpointTime: '2026-01-01T00:00:00Z' }
  let step = 10
  answer = (request, response) =>
    json(
      record({
        step: step++,
        schedule: 'shortcut K=3, 1 chunk',
        estimatedRemainingSeconds: 60,
        ...figures,
        ...checkpoint,
      }),
    )(request, response)
  const status = await ns.status('gpt', ({ progress }) => progress !== undefined)
  expect(status.progress).toMatchObject({ totalSteps: 100, lossMilli: 5200, estimatedRemainingSeconds: 60 })
  expect(status.throughput).toMatchObject({
    tokensPerSecond: 4000,
    tokensPerSecondPerRank: 2000,
    overlapPercent: 97,
    schedule: 'shortcut K=3, 1 chunk',
  })
  expect(status.lastCheckpoint).toEqual({ step: 5, time: '2026-01-01T00:00:00Z' })
  const first = status.progress?.step ?? 0
  await sleep(3500)
  expect((await ns.job('gpt')).status?.progress?.step).toBe(first)
  await ns.status('gpt', ({ progress }) => (progress?.step ?? 0) > first)
  // The other field owner's part is untouched, and this one's is by its own.
  expect((await ns.job('gpt')).status).toMatchObject({ state: 'Running', workers: { ready: 2 } })
  expect(await operator.metric('scmoejob_tokens_per_second', `namespace="${ns.name}"`)).toBe(4000)
})

it.each([
  ['garbage', 'no JSON at all', 'garbage', () => json('<html>hello</html>')],
  ['garbage', 'a record with a wrong field', 'garbage', () => json(record({ step: -1 }))],
  ['oversized', 'more than 64 KiB', 'oversized', () => json(record({ padding: 'x'.repeat(PROGRESS_MAX_BYTES) }))],
  ['foreign', "another job's record", 'foreign', () => json(JSON.stringify(progressOf('another-uid')))],
  ['foreign', "an earlier attempt's record", 'foreign', () => json(record({ attempt: 0 }))],
  ['unreachable', 'an error', 'unreachable', (): RequestListener => (_, response) => response.writeHead(500).end()],
  ['unreachable', 'no answer within 2 s', 'unreachable', (): RequestListener => () => undefined],
  [
    'unreachable',
    'an answer that never ends',
    'unreachable',
    (): RequestListener => (_, response) => void response.writeHead(200).write('{'),
  ],
])('counts as %s: %s; the last status stays with its old time', async (_, __, result, make) => {
  answer = json(record({ step: 42, tokensPerSecond: 100 }))
  const before = await ns.status('gpt', ({ progress }) => progress?.step === 42)
  const count = await scrapes(result)
  answer = make()
  await waitFor('the answer to be counted', async () => (await scrapes(result)) > count)
  await sleep(200)
  const after = (await ns.job('gpt')).status
  expect([after?.progress, after?.throughput]).toEqual([before.progress, before.throughput])
  await ns.deleteJob('gpt')
})

it('logs a problem once, not each time', async () => {
  answer = json('garbage')
  const seen = asked
  await waitFor('three scrapes', async () => asked >= seen + 3)
  const lines = operator.log
    .split('\n')
    .filter(line => line.includes(`"job":"${ns.name}/gpt"`) && line.includes('no progress from rank 0'))
  expect(lines.filter(line => line.includes('garbage'))).toHaveLength(1)
})

it('asks a job only while it runs', async () => {
  await ns.patchJob('gpt', { suspend: true })
  await ns.state('gpt', 'Suspended', 'Suspended')
  await sleep(1500)
  const before = asked
  await sleep(6000)
  // Others of this file may still run in other namespaces; theirs are at most one per 5 s each.
  const others = (
    await api.kube.call<{ items: StoredJob[] }>({ method: 'GET', path: '/apis/scmoe.dev/v1alpha1/scmoejobs' })
  ).items
  const running = others.filter(({ status }) => status?.state === 'Running').length
  expect(asked - before).toBeLessThanOrEqual(running * 2)
})

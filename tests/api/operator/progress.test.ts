// Tests of asking rank 0 over real HTTP. Whatever the answer is, the status stays true and the
// operator stays alive. An interval is at least 5 s, so all tests of this file wait at the same
// time, each with a job and an address of its own.

import type { RequestListener } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { PROGRESS_MAX_BYTES } from '../../../crds/contract.ts'
import type { ScMoEJobStatus } from '../../../crds/status.ts'
import { Kubelet, progressOf } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { json, type Rank0, Ranks } from '../../support/api/rank0.ts'

const INTERVAL_SECONDS = 5
const RESULTS = ['ok', 'garbage', 'oversized', 'foreign', 'unreachable'] as const
type Result = (typeof RESULTS)[number]

let api: Api
let operator: Operator
let kubelet: Kubelet
let ranks: Ranks

/** Number of answers given to the operator, by the result that it should count. */
const given = Object.fromEntries(RESULTS.map(result => [result, 0])) as Record<Result, number>

/** A job `gpt` in a namespace of its own. */
class Asked {
  readonly ns: Namespace
  readonly rank: Rank0
  #uid = ''

  private constructor(ns: Namespace) {
    this.ns = ns
    this.rank = ranks.of(ns)
    this.says('ok', (request, response) => json(this.record({ step: 42, tokensPerSecond: 100 }))(request, response))
  }

  static async make(): Promise<Asked> {
    return new Asked(await api.namespace())
  }

  async run(): Promise<void> {
    const spec = { workers: { replicas: 2 }, reporting: { intervalSeconds: INTERVAL_SECONDS } }
    this.#uid = (await this.ns.createJob('gpt', spec)).metadata.uid ?? ''
    await this.ns.state('gpt', 'Running')
  }

  record(extra: object = {}): string {
    return JSON.stringify(progressOf(this.#uid, extra))
  }

  says(result: Result, answer: RequestListener): void {
    this.rank.says((request, response) => {
      given[result]++
      answer(request, response)
    })
  }

  async status(): Promise<ScMoEJobStatus | undefined> {
    return (await this.ns.job('gpt')).status
  }
}

beforeAll(async () => {
  api = await Api.start()
  ranks = await Ranks.start()
  operator = await Operator.start(api.kubeconfig, `--progress-port=${ranks.port}`)
  kubelet = new Kubelet(api.kube, { autoReady: true, address: ranks.addressOf })
})
afterAll(async () => {
  await kubelet?.stop()
  await operator?.stop()
  ranks?.stop()
  await api?.stop()
})

it.concurrent('progress, throughput and checkpoint are written, and asked for once in an interval', async () => {
  const job = await Asked.make()
  const figures = {
    lossMilli: 5200,
    tokensPerSecond: 4000,
    stepTimeMilliseconds: 250,
    communicationMilliseconds: 80,
    overlapPercent: 97,
    schedule: 'shortcut K=3, 1 chunk',
    estimatedRemainingSeconds: 60,
  }
  const checkpoint = { lastCheckpointStep: 5, lastCheckpointTime: '2026-01-01T00:00:00Z' }
  let step = 10
  job.says('ok', (request, response) =>
    json(job.record({ step: step++, ...figures, ...checkpoint }))(request, response),
  )
  await job.run()
  const status = await job.ns.status('gpt', ({ progress }) => progress !== undefined)
  expect(status.progress).toMatchObject({ totalSteps: 100, lossMilli: 5200, estimatedRemainingSeconds: 60 })
  expect(status.throughput).toMatchObject({
    tokensPerSecond: 4000,
    tokensPerSecondPerRank: 2000,
    overlapPercent: 97,
    schedule: 'shortcut K=3, 1 chunk',
  })
  expect(status.lastCheckpoint).toEqual({ step: 5, time: '2026-01-01T00:00:00Z' })
  const first = status.progress?.step ?? 0
  await job.ns.status('gpt', ({ progress }) => (progress?.step ?? 0) > first)
  // The fields of OWNER_CONTROLLER are unchanged.
  expect(await job.status()).toMatchObject({ state: 'Running', workers: { ready: 2 } })
  expect(await operator.metric('scmoejob_tokens_per_second', `namespace="${job.ns.name}"`)).toBe(4000)
  await job.rank.untilAsked(3)
  const pauses = job.rank.asked.slice(1).map((at, i) => at - (job.rank.asked[i] ?? 0))
  // A request may be late, but by less than a second.
  expect(Math.min(...pauses)).toBeGreaterThan((INTERVAL_SECONDS - 1) * 1000)
})

it.concurrent('a problem is logged once, not each time', async () => {
  const job = await Asked.make()
  job.says('garbage', json('garbage'))
  await job.run()
  await job.rank.untilAsked(3)
  const lines = operator.log
    .split('\n')
    .filter(line => line.includes(`"job":"${job.ns.name}/gpt"`) && line.includes('no progress from rank 0'))
  expect(lines.filter(line => line.includes('garbage'))).toHaveLength(1)
})

it.concurrent('a job is asked only while it runs', async () => {
  const job = await Asked.make()
  await job.run()
  await job.rank.untilAsked(1)
  await job.ns.patchJob('gpt', { suspend: true })
  await job.ns.state('gpt', 'Suspended', 'Suspended')
  await sleep(1500)
  const before = job.rank.asked.length
  await sleep((INTERVAL_SECONDS + 1) * 1000)
  expect(job.rank.asked).toHaveLength(before)
})

describe.concurrent('the last status stays, with its old time, when the answer is', () => {
  const cases: [string, Result, (job: Asked) => RequestListener][] = [
    ['no JSON at all', 'garbage', () => json('<html>hello</html>')],
    ['a record with a wrong field', 'garbage', job => json(job.record({ step: -1 }))],
    ['more than 64 KiB', 'oversized', job => json(job.record({ padding: 'x'.repeat(PROGRESS_MAX_BYTES) }))],
    ["another job's record", 'foreign', () => json(JSON.stringify(progressOf('another-uid')))],
    ["an earlier attempt's record", 'foreign', job => json(job.record({ attempt: 0 }))],
    ['an error', 'unreachable', () => (_, response) => response.writeHead(500).end()],
    ['none within 2 s', 'unreachable', () => () => undefined],
    ['one that never ends', 'unreachable', () => (_, response) => void response.writeHead(200).write('{')],
  ]
  it.each(cases)('%s', async (_, result, make) => {
    const job = await Asked.make()
    await job.run()
    const before = await job.ns.status('gpt', ({ progress }) => progress?.step === 42)
    const times = job.rank.asked.length
    job.says(result, make(job))
    await job.rank.untilAsked(times + 1)
    // Waits until the operator has given up, and a moment longer for a write that must not come.
    await sleep(2500)
    const after = await job.status()
    expect([after?.progress, after?.throughput]).toEqual([before.progress, before.throughput])
  })
})

// Seen failing with another job's record counted as garbage.
it('every answer is counted as what it was, or as unreachable where a slow machine let it come too late', async () => {
  const look = async () => {
    const counts = RESULTS.map(async result => operator.metric('scmoejob_progress_scrapes_total', `result="${result}"`))
    const counted = await Promise.all(counts)
    // Some requests may have been answered and not been counted yet.
    return sum(counted) >= sum(Object.values(given)) ? counted : undefined
  }
  const counted = await waitFor(`as many counts as ${JSON.stringify(given)}`, look)
  for (const [i, result] of RESULTS.entries()) {
    expect(counted[i], result).toBeGreaterThan(0)
    if (result !== 'unreachable') expect(counted[i], result).toBeLessThanOrEqual(given[result])
  }
  expect(Math.min(...Object.values(given))).toBeGreaterThan(0)
})

const sum = (numbers: readonly number[]) => numbers.reduce((total, each) => total + each, 0)

// Tests of the operator while the API server, or the network to it, misbehaves. After every fault
// the next job still runs.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Pod } from '../../../operator/objects/wire.ts'
import { Kubelet } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { FaultProxy, isList, isWatch, isWrite } from '../../support/api/proxy.ts'

const WATCHES = 4

let api: Api
let proxy: FaultProxy
let operator: Operator
let kubelet: Kubelet
let ns: Namespace
let jobs = 0
const folder = mkdtempSync(join(tmpdir(), 'scmoe-faults-'))

beforeAll(async () => {
  api = await Api.start()
  const kubeconfig = join(folder, 'kubeconfig')
  proxy = await FaultProxy.start(api.kubeconfig, kubeconfig)
  operator = await Operator.start(kubeconfig, '--watch-idle-seconds=3')
  kubelet = new Kubelet(api.kube, { autoReady: true })
  ns = await api.namespace()
  await api.control('garbage-collector-controller')
})
afterEach(() => {
  proxy.delay(0)
  proxy.pageSize = undefined
})
afterAll(async () => {
  await kubelet?.stop()
  await operator?.stop()
  await proxy?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

/** Creates a job and waits until it runs: its pods are created, and found ready. */
async function jobRuns(): Promise<string> {
  const name = `job-${++jobs}`
  await ns.createJob(name, { workers: { replicas: 2 } })
  await ns.state(name, 'Running')
  return name
}

const lists = () =>
  proxy.requests.filter(each => isList(...(each.split(' ') as [string, string])) && each.includes('limit=')).length

describe('a watch', () => {
  it('that is reset goes on from where it was, without a new list', async () => {
    await jobRuns()
    await waitFor('all watches', async () => proxy.watches === WATCHES)
    const before = lists()
    proxy.resetWatches()
    await jobRuns()
    expect(lists()).toBe(before)
  })

  it('whose version the server has forgotten (410 as an answer, 410 within the stream) starts again with a list', async () => {
    await waitFor('all watches', async () => proxy.watches === WATCHES)
    const before = lists()
    proxy.refuse(isWatch, 410, { times: 2 })
    proxy.resetWatches()
    await waitFor('two lists', async () => lists() >= before + 2)
    await waitFor('all watches', async () => proxy.watches === WATCHES)
    proxy.expireWatches()
    await waitFor('more lists', async () => lists() > before + 2)
    await jobRuns()
  })

  it('that is refused with 500 is tried again', async () => {
    proxy.refuse(isWatch, 500, { times: 8 })
    proxy.resetWatches()
    await jobRuns()
    await waitFor('the refusals to be used', async () => proxy.pending === 0)
  })

  it('that is open but dead is given up and opened again', async () => {
    await waitFor('all watches', async () => proxy.watches === WATCHES)
    proxy.muteWatches()
    await jobRuns()
    expect(operator.log).toContain('watch silent for 3000 ms')
  })

  it('that is slow only delays', async () => {
    proxy.delay(400)
    await jobRuns()
  })

  it('misses nothing that happens while it is down: a job deleted and made again is another job', async () => {
    const name = await jobRuns()
    const first = await ns.job(name)
    proxy.refuse(isWatch, 500, { times: WATCHES * 3 })
    proxy.resetWatches()
    await ns.deleteJob(name)
    const second = await ns.createJob(name, { workers: { replicas: 2 } })
    expect(second.metadata.uid).not.toBe(first.metadata.uid)
    const status = await ns.status(name, ({ state }) => state === 'Running')
    expect(status).toMatchObject({ attempt: 1, restarts: 0 })
    const pods = (await ns.list<Pod>('Pod')).filter(({ metadata }) => metadata.name.startsWith(`${name}-`))
    expect(pods.map(({ metadata }) => metadata.labels?.['scmoe.dev/job-uid'])).toEqual([
      second.metadata.uid,
      second.metadata.uid,
    ])
  })
})

describe('a list', () => {
  const isNextPage = (method: string, url: string) => isList(method, url) && url.includes('continue=')
  const pages = () => proxy.requests.filter(each => each.includes('continue=')).length

  it.each([
    ['throttled', 429],
    ['refused', 500],
    ['expires', 410],
  ])('that is throttled, refused or expires half way through its pages: %s', async (_, code) => {
    await Promise.all([jobRuns(), jobRuns()])
    await waitFor('all watches', async () => proxy.watches === WATCHES)
    proxy.pageSize = 1
    const [before, waits] = [pages(), proxy.waits.length]
    proxy.refuse(isNextPage, code, { times: 2, retryAfter: code === 429 ? 2 : undefined })
    proxy.expireWatches()
    await waitFor('the refusals to be used', async () => proxy.pending === 0)
    await jobRuns()
    expect(pages()).toBeGreaterThan(before + 2)
    // A throttled page is asked for again. After any other fault a new list begins.
    if (code !== 429) return
    await waitFor('the throttled pages', async () => proxy.waits.length >= waits + 2)
    expect(Math.min(...proxy.waits.slice(waits))).toBeGreaterThan(1900)
  })
})

describe('a write', () => {
  it('that is throttled (429 with Retry-After) waits as long as it was told', async () => {
    const start = performance.now()
    // Requests of earlier jobs, for states and events, may still follow and are left out.
    const isPod = (method: string, url: string) => method === 'POST' && /\/pods(\?|$)/.test(url)
    proxy.refuse(isPod, 429, { times: 1, retryAfter: 2 })
    await jobRuns()
    expect(performance.now() - start).toBeGreaterThan(1900)
  })

  it('that fails with 500 is tried again, and no pod is made twice', async () => {
    proxy.refuse(isWrite, 500, { times: 6 })
    const name = await jobRuns()
    const uids = (await ns.list<Pod>('Pod')).filter(({ metadata }) => metadata.name.startsWith(`${name}-`))
    expect(uids).toHaveLength(2)
    expect((await ns.job(name)).status).toMatchObject({ attempt: 1, restarts: 0 })
  })

  it('does not come when the operator is idle after all this', async () => {
    await waitFor('all watches', async () => proxy.watches === WATCHES)
    await sleep(1000)
    const before = proxy.requests.filter(each => !each.startsWith('GET')).length
    await sleep(4000)
    expect(proxy.requests.filter(each => !each.startsWith('GET')).length).toBe(before)
  })
})

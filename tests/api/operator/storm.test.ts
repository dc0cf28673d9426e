// Gangs that fail together are made anew before all else. Where every gang fails as soon as it runs, again and again, how fast pods are made is bounded,
// for each job by its back-off, for all by the limit on writes. What was made in each second is printed.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Pod } from '../../../operator/objects/wire.ts'
import { Kubelet } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, type StoredJob } from '../../support/api/operator.ts'
import { FaultProxy } from '../../support/api/proxy.ts'

const JOBS = 6
const WORKERS = 2
const RESTARTS = 2
const BACKOFF_SECONDS = 2
const WRITES = { perSecond: 10, atOnce: 5 }

let api: Api
let proxy: FaultProxy
let kubelet: Kubelet
const operators: Operator[] = []
const folder = mkdtempSync(join(tmpdir(), 'scmoe-storm-'))

beforeAll(async () => {
  api = await Api.start()
  proxy = await FaultProxy.start(api.kubeconfig, join(folder, 'kubeconfig'))
  kubelet = new Kubelet(api.kube, { autoReady: true })
})
afterAll(async () => {
  await kubelet?.stop()
  await Promise.all(operators.map(async operator => operator.stop()))
  await proxy?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

/** A namespace and an operator for it, through the proxy. */
async function place(...flags: string[]): Promise<Namespace> {
  const ns = await api.namespace()
  operators.push(await Operator.start(join(folder, 'kubeconfig'), `--watch-namespaces=${ns.name}`, ...flags))
  return ns
}

/** Until all jobs are Failed, whatever runs fails. */
async function failAll(ns: Namespace): Promise<void> {
  for (;;) {
    const jobs = await ns.list<StoredJob>('ScMoEJob')
    if (jobs.every(({ status }) => status?.state === 'Failed')) return
    const running = (await ns.list<Pod>('Pod')).filter(
      ({ status, metadata }) => status?.phase === 'Running' && metadata.deletionTimestamp === undefined,
    )
    // One that was told to stop in between is gone.
    await Promise.all(running.map(async pod => kubelet.end(pod, { exitCode: 70 }).catch(() => undefined)))
    await sleep(50)
  }
}

/** The most of these times, in order, that lie within so many milliseconds. */
const mostWithin = (milliseconds: number, times: readonly number[]) =>
  Math.max(...times.map((start, i) => times.slice(i).findLastIndex(time => time - start < milliseconds) + 1))

// Seen to fail: where the end of the last pod took the place of the end of the back-off, so that gangs were made when the burst of failures was long over.
it('of gangs that fail together all are made anew before anything but their failures is told', async () => {
  const gangs = 20
  const ns = await place()
  const failurePolicy = { backoff: { initialSeconds: 1, maxSeconds: 1 } }
  const names = Array.from({ length: gangs }, (_, i) => `job-${i}`)
  await Promise.all(names.map(async name => ns.createJob(name, { failurePolicy })))
  for (const name of names) await ns.state(name, 'Running')
  const before = proxy.acts.length
  await Promise.all((await ns.gang(gangs)).map(async pod => kubelet.end(pod, { exitCode: 70 })))
  await ns.gang(gangs, 2)

  const acts = proxy.acts.slice(before).map(({ request }) => request)
  const isMade = (request: string) => /^POST .*\/pods(\?|$)/.test(request)
  const told = acts.slice(0, acts.findLastIndex(isMade)).filter(request => /^PATCH .*\/status/.test(request))
  expect(acts.filter(isMade)).toHaveLength(gangs)
  expect(told).toHaveLength(gangs)
})

it('gangs that fail as soon as they run are made as often as the policy says, no faster than back-off and limit let', async () => {
  const ns = await place(`--api-writes-per-second=${WRITES.perSecond}`, `--api-writes-at-once=${WRITES.atOnce}`)
  const madeBefore = proxy.made.length
  const failurePolicy = { maxRestarts: RESTARTS, backoff: { initialSeconds: BACKOFF_SECONDS } }
  const names = Array.from({ length: JOBS }, (_, i) => `job-${i}`)
  await Promise.all(names.map(async name => ns.createJob(name, { workers: { replicas: WORKERS }, failurePolicy })))
  await failAll(ns)

  const made = proxy.made.slice(madeBefore)
  expect(made).toHaveLength(JOBS * WORKERS * (RESTARTS + 1))
  for (const name of names) {
    const times = made.filter(pod => pod.name.startsWith(`${name}-`)).map(({ at }) => at)
    for (let restart = 1; restart <= RESTARTS; restart++) {
      const pause = (times[restart * WORKERS] ?? 0) - (times[restart * WORKERS - 1] ?? 0)
      expect(pause, `before restart ${restart} of ${name}`).toBeGreaterThanOrEqual(
        BACKOFF_SECONDS * 2 ** (restart - 1) * 1000,
      )
    }
  }
  const writes = proxy.acts.filter(({ request }) => request.includes(`/${ns.name}/`)).map(({ at }) => at)
  // Two seconds' worth in one: what was held up on its way may arrive with what was sent a second later.
  expect(mostWithin(1000, writes)).toBeLessThanOrEqual(WRITES.atOnce + 2 * WRITES.perSecond)

  const start = Math.floor((writes[0] ?? 0) / 1000)
  const seconds = Math.floor((writes.at(-1) ?? 0) / 1000) - start + 1
  const each = (times: readonly number[]) =>
    Array.from({ length: seconds }, (_, i) => times.filter(time => Math.floor(time / 1000) === start + i).length).join(
      ' ',
    )
  console.log(
    `${made.length} pods of ${JOBS} gangs that always fail, in ${seconds} s: at most ${mostWithin(
      1000,
      made.map(({ at }) => at),
    )} in one second\n` +
      `pods in each second:   ${each(made.map(({ at }) => at))}\nwrites in each second: ${each(writes)}`,
  )
})

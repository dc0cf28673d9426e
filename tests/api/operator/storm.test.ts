// Tests of many gangs that fail at the same time. They are created again before anything else. If
// gangs fail again and again, the rate of new pods is bounded by each job's back-off and by the
// limit of writes. The number of pods in each second is printed.

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

/** Creates a namespace, and starts an operator for it that goes through the proxy. */
async function place(...flags: string[]): Promise<Namespace> {
  const ns = await api.namespace()
  operators.push(await Operator.start(join(folder, 'kubeconfig'), `--watch-namespaces=${ns.name}`, ...flags))
  return ns
}

/** Lets every running pod fail until all jobs are Failed. */
async function failAll(ns: Namespace): Promise<void> {
  for (;;) {
    const jobs = await ns.list<StoredJob>('ScMoEJob')
    if (jobs.every(({ status }) => status?.state === 'Failed')) return
    const running = (await ns.list<Pod>('Pod')).filter(
      ({ status, metadata }) => status?.phase === 'Running' && metadata.deletionTimestamp === undefined,
    )
    // A pod that was told to stop in between may be gone.
    await Promise.all(running.map(async pod => kubelet.end(pod, { exitCode: 70 }).catch(() => undefined)))
    await sleep(50)
  }
}

/** The largest number of these ordered times that lie within so many milliseconds. */
const mostWithin = (milliseconds: number, times: readonly number[]) =>
  Math.max(...times.map((start, i) => times.slice(i).findLastIndex(time => time - start < milliseconds) + 1))

// Seen failing with the end of the last pod in place of the end of the back-off: gangs were created
// long after the burst of failures.
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
  // Writes of two seconds are allowed in one, because delayed writes may arrive with later ones.
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

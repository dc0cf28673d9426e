// Tests of two replicas, each behind a proxy that records its writes. Whatever happens to the
// leader, the two never write at the same time, and no pod is lost or created twice.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { LeaseSpec } from '../../../operator/api/elector.ts'
import type { Pod } from '../../../operator/objects/wire.ts'
import { Kubelet } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { FaultProxy } from '../../support/api/proxy.ts'

const LEASE_SECONDS = 6
const JOBS = 6
const WORKERS = 4

type Replica = { proxy: FaultProxy; operator: Operator }

let api: Api
let kubelet: Kubelet
let ns: Namespace
let leader: Replica
let standby: Replica
const folder = mkdtempSync(join(tmpdir(), 'scmoe-leaders-'))

beforeAll(async () => {
  api = await Api.start()
  kubelet = new Kubelet(api.kube, { autoReady: true })
})
afterAll(async () => {
  await kubelet?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})
beforeEach(async () => {
  ns = await api.namespace()
  leader = await replica('a')
  await leader.operator.logged('"leads"')
  standby = await replica('b')
})
afterEach(async () => {
  for (const { operator, proxy } of [leader, standby]) {
    operator.child.kill('SIGCONT')
    await operator.stop('SIGKILL')
    await proxy.stop()
  }
})

async function replica(identity: string): Promise<Replica> {
  const kubeconfig = join(folder, `${ns.name}-${identity}`)
  const proxy = await FaultProxy.start(api.kubeconfig, kubeconfig)
  const election = ['--leader-elect', `--leader-election-namespace=${ns.name}`, `--lease-seconds=${LEASE_SECONDS}`]
  const flags = [`--identity=${identity}`, `--watch-namespaces=${ns.name}`, ...election]
  return { proxy, operator: await Operator.start(kubeconfig, ...flags) }
}

const acts = ({ proxy }: Replica) => proxy.acts.map(({ at }) => at)
const pods = async () => ns.list<Pod>('Pod')

/** Creates jobs, and returns while the leader is creating their pods. */
async function burst(): Promise<void> {
  const before = leader.proxy.acts.length
  for (let i = 0; i < JOBS; i++) await ns.createJob(`job-${i}`, { workers: { replicas: WORKERS } })
  await waitFor('the leader to be at it', async () => leader.proxy.acts.length > before + 2)
}

/** Expects all jobs to run in their first attempt, with the pods that were seen before. */
async function nothingLost(seen: readonly Pod[]): Promise<void> {
  for (let i = 0; i < JOBS; i++)
    expect(await ns.state(`job-${i}`, 'Running')).toMatchObject({
      attempt: 1,
      restarts: 0,
      workers: { ready: WORKERS },
    })
  const now = new Set((await pods()).map(({ metadata }) => metadata.uid))
  expect(now.size).toBe(JOBS * WORKERS)
  expect(seen.filter(({ metadata }) => !now.has(metadata.uid))).toEqual([])
}

const lease = async (): Promise<LeaseSpec> =>
  (
    await api.kube.call<{ spec: LeaseSpec }>({
      method: 'GET',
      path: `/apis/coordination.k8s.io/v1/namespaces/${ns.name}/leases/scmoe-operator`,
    })
  ).spec

const time = (text: string | undefined) => Date.parse(text ?? '')

/** How often the standby has looked at the Lease since the beginning. */
const looks = () => standby.proxy.requests.filter(each => /^GET .*\/leases\//.test(each)).length
/**
 * The largest number of looks in a multiple of the Lease's time. For a Lease of 15 s the standby
 * looks every 2 s, give or take a tenth.
 */
const looksIn = (leases: number) => Math.ceil((leases * 7.5) / 0.9)

/**
 * Expects the standby to take over within a multiple of the Lease's time. The time is counted in
 * looks at the Lease, because a slow machine does less in the same time.
 */
async function takenOver(before: LeaseSpec, leases = 4 / 3): Promise<void> {
  const earlier = looks()
  await standby.operator.logged('"leads"')
  expect(await lease()).toMatchObject({
    holderIdentity: 'b',
    leaseTransitions: (before.leaseTransitions ?? 0) + 1,
  })
  expect(looks() - earlier).toBeLessThanOrEqual(looksIn(leases))
}

/** Expects all writes of the leader, and `earliest`, before the first write of the standby. */
function oneWriter(earliest = 0): void {
  expect(acts(leader).length).toBeGreaterThan(0)
  expect(acts(standby).length).toBeGreaterThan(0)
  expect(Math.max(earliest, ...acts(leader))).toBeLessThan(Math.min(...acts(standby)))
}

/** The time at which the Lease ends. */
const end = ({ renewTime }: LeaseSpec) => time(renewTime) + LEASE_SECONDS * 1000

describe('when the leader', () => {
  it('is killed in a burst, the standby acts within four thirds of the lease, and finishes what was begun', async () => {
    await burst()
    await leader.operator.stop('SIGKILL')
    const [seen, before] = [await pods(), await lease()]
    await takenOver(before)
    await nothingLost(seen)
    oneWriter(end(before))
  })

  it('is told to stop in a burst, it lets go, and the standby acts long before the lease would be over', async () => {
    await burst()
    const seen = await pods()
    const before = await lease()
    expect(await leader.operator.stop('SIGTERM')).toBe(0)
    // The next look finds the Lease free. An earlier look may be under way.
    await takenOver(before, 2 / 7.5)
    await nothingLost(seen)
    oneWriter()
  })

  // Seen failing without the budget of writes in operator/api/kube.ts: the leader went on with its
  // burst when it woke up.
  it('is paused in a burst for longer than its lease, it writes nothing after it wakes, and ends', async () => {
    leader.proxy.delay(50)
    await burst()
    leader.operator.child.kill('SIGSTOP')
    const [seen, before] = [await pods(), await lease()]
    await takenOver(before)
    await nothingLost(seen)
    leader.operator.child.kill('SIGCONT')
    expect(await leader.operator.ended).toBe(1)
    oneWriter(end(before))
  })

  it('is cut off from the server in a burst, it ends before another may act', async () => {
    await burst()
    leader.proxy.cut()
    const [seen, before] = [await pods(), await lease()]
    expect(await leader.operator.ended).toBe(1)
    const [, given] = /"time":"([^"]+)"[^\n]+the lease is lost/.exec(leader.operator.log) ?? []
    await takenOver(before)
    leader.proxy.heal()
    await nothingLost(seen)
    await sleep(500)
    oneWriter(time(given))
  })
})

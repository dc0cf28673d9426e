// Tests of operators that die, and of two operators at the same time. Jobs must not be affected.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { freePort } from '../../../tools/free-port.ts'
import { Kubelet } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator } from '../../support/api/operator.ts'

let api: Api
let kubelet: Kubelet
const operators: Operator[] = []
const folder = mkdtempSync(join(tmpdir(), 'scmoe-restart-'))

beforeAll(async () => {
  api = await Api.start()
  kubelet = new Kubelet(api.kube, { autoReady: true })
})
afterAll(async () => {
  await Promise.all(operators.map(async operator => operator.stop('SIGKILL')))
  await kubelet?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

/** An operator for the jobs of one test, so that all tests of this file can run at once. */
async function start({ name }: Namespace, ...flags: string[]): Promise<Operator> {
  const operator = await Operator.start(api.kubeconfig, `--watch-namespaces=${name}`, ...flags)
  operators.push(operator)
  return operator
}

const spec = { workers: { replicas: 4 }, failurePolicy: { backoff: { initialSeconds: 3, maxSeconds: 3 } } }
const uids = async (ns: Namespace) => (await ns.gang(4)).map(({ metadata }) => metadata.uid)

describe.concurrent('an operator that is killed', () => {
  it('leaves running jobs alone, and its successor makes nothing twice', async () => {
    const ns = await api.namespace()
    const first = await start(ns)
    await ns.createJob('gpt', spec)
    await ns.state('gpt', 'Running')
    const before = await uids(ns)
    const { resourceVersion } = (await ns.job('gpt')).metadata
    await first.stop('SIGKILL')
    await start(ns)
    await sleep(2000)
    expect(await uids(ns)).toEqual(before)
    expect((await ns.job('gpt')).metadata.resourceVersion).toBe(resourceVersion)
  })

  it('at any moment of a start is succeeded by one that finishes it, as the first attempt', async () => {
    const ns = await api.namespace()
    for (const milliseconds of [0, 5, 15, 30, 60, 120]) {
      const name = `gpt-${milliseconds}`
      const operator = await start(ns)
      const created = ns.createJob(name, spec)
      await sleep(milliseconds)
      await operator.stop('SIGKILL')
      await created
      const successor = await start(ns)
      const status = await ns.state(name, 'Running')
      expect(status).toMatchObject({ attempt: 1, restarts: 0, workers: { ready: 4 } })
      await successor.stop('SIGKILL')
    }
    expect(await ns.podNames()).toHaveLength(4 * 6)
  })

  it('during a restart of the gang is succeeded by one that counts that restart once', async () => {
    const ns = await api.namespace()
    const first = await start(ns)
    await ns.createJob('gpt', spec)
    await ns.state('gpt', 'Running')
    const [pod] = await ns.gang(4)
    if (pod === undefined) throw new Error('no pod')
    await kubelet.end(pod, { exitCode: 70 })
    await ns.state('gpt', 'Restarting')
    await first.stop('SIGKILL')
    await start(ns)
    const status = await ns.state('gpt', 'Running')
    expect(status).toMatchObject({ attempt: 2, restarts: 1, lastFailure: { podName: 'gpt-worker-0', exitCode: 70 } })
  })

  it('did not see a failure: its successor does', async () => {
    const ns = await api.namespace()
    const first = await start(ns)
    await ns.createJob('gpt', spec)
    await ns.state('gpt', 'Running')
    await first.stop('SIGKILL')
    const pods = await ns.gang(4)
    if (pods[2] === undefined) throw new Error('no pod')
    await kubelet.end(pods[2], { exitCode: 64 })
    await start(ns)
    expect((await ns.state('gpt', 'Failed', 'PermanentFailure')).lastFailure).toMatchObject({ podName: 'gpt-worker-2' })
  })
})

const elect = (ns: Namespace, seconds: number) => [
  '--leader-elect',
  `--leader-election-namespace=${ns.name}`,
  `--lease-seconds=${seconds}`,
]

describe.concurrent('an operator', () => {
  it('touches only the namespaces it is told to watch', async () => {
    const [mine, other] = [await api.namespace(), await api.namespace()]
    await other.createJob('gpt')
    await start(mine)
    await mine.createJob('gpt')
    await mine.state('gpt', 'Running')
    expect((await other.job('gpt')).status).toBeUndefined()
  })

  it('is ready once its caches are full, and tells its figures under the usual names', async () => {
    const ns = await api.namespace()
    await ns.createJob('gpt')
    const port = await freePort()
    const operator = await start(ns, `--health-port=${port}`)
    await ns.state('gpt', 'Running')
    const status = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status
    expect([await status('/healthz'), await status('/readyz?verbose'), await status('/other')]).toEqual([200, 200, 404])
    const names = [
      'controller_runtime_reconcile_total',
      'controller_runtime_reconcile_time_seconds_count',
      'workqueue_adds_total',
      'workqueue_queue_duration_seconds_count',
      'rest_client_requests_total',
      'scmoejob_status_writes_total',
      'process_resident_memory_bytes',
    ]
    const values = await Promise.all(names.map(async name => operator.metric(name)))
    expect(names.filter((_, i) => !((values[i] ?? 0) > 0))).toEqual([])
    expect(await operator.metric('scmoejob_jobs', `namespace="${ns.name}",state="Running"`)).toBe(1)
    expect(await operator.metric('workqueue_depth')).toBe(0)
  })

  it('says what is wrong with a flag, a file or a port', async () => {
    await expect(Operator.start(api.kubeconfig, '--concurrency=0')).rejects.toThrow('Give a whole number from 1 to 256')
    await expect(Operator.start('/nowhere')).rejects.toThrow(
      /"kubeconfig \/nowhere cannot be read \(ENOENT.*--kubeconfig"/,
    )
    const port = await freePort()
    const taken = createServer().listen(port)
    await expect(Operator.start(api.kubeconfig, `--health-port=${port}`)).rejects.toThrow(
      new RegExp(`"--health-port ${port}: listen EADDRINUSE.*give another port, or 0 for none"`),
    )
    taken.close()
  })

  // Seen failing with an operator that said its caches were full, and ran until it was killed.
  it('that is told to stop before the API server has answered ends', async () => {
    const config: { clusters: { cluster: { server: string } }[] } = parse(readFileSync(api.kubeconfig, 'utf8'))
    for (const { cluster } of config.clusters) cluster.server = `https://127.0.0.1:${await freePort()}`
    const file = join(folder, 'dead')
    writeFileSync(file, JSON.stringify(config))
    const operator = await Operator.spawn(file)
    operators.push(operator)
    await operator.logged('ECONNREFUSED')
    expect(await operator.stop('SIGTERM')).toBe(0)
    expect(operator.log).not.toContain('caches are full')
  })
})

describe.concurrent('two replicas', () => {
  it('act one at a time; after a graceful stop the other takes over long before the lease is over', async () => {
    const ns = await api.namespace()
    const a = await start(ns, ...elect(ns, 60), '--identity=a')
    await a.logged('leads')
    const b = await start(ns, ...elect(ns, 60), '--identity=b')
    await ns.createJob('one', { workers: { replicas: 2 } })
    await ns.state('one', 'Running')
    expect(b.log).not.toContain('"leads"')
    expect([await a.metric('leader_election_master_status'), await b.metric('leader_election_master_status')]).toEqual([
      1, 0,
    ])
    expect(await a.stop('SIGTERM')).toBe(0)
    await b.logged('leads', 40_000)
    await ns.createJob('two', { workers: { replicas: 2 } })
    await ns.state('two', 'Running')
  })

  it('after the leader was killed the other takes over when the lease is over', async () => {
    const ns = await api.namespace()
    const a = await start(ns, ...elect(ns, 6), '--identity=a')
    await a.logged('leads')
    const b = await start(ns, ...elect(ns, 6), '--identity=b')
    await a.stop('SIGKILL')
    await ns.createJob('gpt', { workers: { replicas: 2 } })
    await b.logged('leads')
    await ns.state('gpt', 'Running')
  })

  it('a leader that finds its lease taken ends at once with an exit code that says so', async () => {
    const ns = await api.namespace()
    const a = await start(ns, ...elect(ns, 6), '--identity=a')
    await a.logged('leads')
    const path = `/apis/coordination.k8s.io/v1/namespaces/${ns.name}/leases/scmoe-operator`
    const body = { spec: { holderIdentity: 'thief' } }
    await api.kube.call({ method: 'PATCH', path, body, contentType: 'application/merge-patch+json' })
    expect(await a.ended).toBe(1)
    expect(a.log).toContain('the lease is lost')
  })
})

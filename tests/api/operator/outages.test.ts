// Tests of outages: etcd or the API server goes away and comes back. Nothing is lost, nothing is
// created twice, and the operator does not flood the server with requests.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { LABEL } from '../../../crds/contract.ts'
import type { Pod } from '../../../operator/objects/wire.ts'
import { Kubelet } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { FaultProxy } from '../../support/api/proxy.ts'

const WORKERS = 2
/** Set SCMOE_OUTAGE_SECONDS=60 for an outage as long as in a real cluster. */
const OUTAGE_SECONDS = Number(process.env['SCMOE_OUTAGE_SECONDS'] ?? (process.env['SCMOE_SOAK'] ? 60 : 8))

let api: Api
let kubelet: Kubelet
let proxy: FaultProxy
let operator: Operator | undefined
let ns: Namespace
let jobs = 0
const folder = mkdtempSync(join(tmpdir(), 'scmoe-outages-'))
const kubeconfig = join(folder, 'kubeconfig')

beforeAll(async () => {
  api = await Api.start()
  proxy = await FaultProxy.start(api.kubeconfig, kubeconfig)
  kubelet = new Kubelet(api.kube, { autoReady: true })
  ns = await api.namespace()
})
afterEach(async () => {
  proxy.heal()
  await operator?.stop()
  operator = undefined
})
afterAll(async () => {
  await kubelet?.stop()
  await proxy?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

async function start(env: NodeJS.ProcessEnv = {}): Promise<Operator> {
  const before = Object.keys(env).map(name => [name, process.env[name]] as const)
  Object.assign(process.env, env)
  try {
    operator = await Operator.start(kubeconfig, '--watch-idle-seconds=5')
    return operator
  } finally {
    for (const [name, value] of before)
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
  }
}

/** Process id of a program of this file's cluster. */
function pidOf(name: 'etcd' | 'kube-apiserver'): number {
  const root = dirname(api.kubeconfig)
  const found = readdirSync('/proc').find(pid => {
    if (!/^\d+$/.test(pid)) return false
    try {
      const [program = '', ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
      return program.endsWith(`/${name}`) && args.some(arg => arg.includes(root))
    } catch {
      return false
    }
  })
  if (found === undefined) throw new Error(`no ${name} of ${root}`)
  return Number(found)
}

const backoff = { initialSeconds: 1, maxSeconds: 1 }
const create = async (): Promise<string> => {
  const name = `job-${++jobs}`
  await ns.createJob(name, { workers: { replicas: WORKERS }, failurePolicy: { backoff } })
  return name
}
const podsOf = async (name: string) =>
  (await ns.list<Pod>('Pod')).filter(({ metadata }) => metadata.labels?.[LABEL.jobName] === name)
const uids = async (name: string) =>
  (await podsOf(name)).map(({ metadata }) => metadata.uid ?? '').toSorted((a, b) => a.localeCompare(b))

/**
 * Number of pods ever created for a job, as the operator's proxy saw it. A pod that was created
 * twice counts twice. A pod whose server was killed before it answered is not counted.
 */
const made = (name: string) => proxy.created.filter(each => each.startsWith(`${name}-worker-`)).length

const runs = async (name: string) => ns.status(name, ({ state }) => state === 'Running')

describe.each(['kube-apiserver', 'etcd'] as const)('%s is killed', program => {
  it('while jobs start and others run: those run on, the others start, each with the pods of one attempt', async () => {
    await start()
    const old = await create()
    await runs(old)
    const before = await uids(old)
    const started = await Promise.all(Array.from({ length: 4 }, create))
    process.kill(pidOf(program), 'SIGKILL')
    for (const name of started) {
      const status = await waitFor('the server to be back', async () => runs(name).catch(() => undefined))
      expect(status).toMatchObject({ attempt: 1, restarts: 0, workers: { ready: WORKERS } })
      expect(await uids(name)).toHaveLength(WORKERS)
      expect(made(name)).toBeLessThanOrEqual(WORKERS)
    }
    expect(await uids(old)).toEqual(before)
    expect((await ns.job(old)).status).toMatchObject({ state: 'Running', attempt: 1, restarts: 0 })
  })
})

describe('an outage', () => {
  it(`of the API server for ${OUTAGE_SECONDS} s: what happened meanwhile is seen once, and it is asked less and less often`, {
    timeout: 300_000 + OUTAGE_SECONDS * 1000,
  }, async () => {
    const running = await start()
    const [failing, calm] = [await create(), await create()]
    await Promise.all([runs(failing), runs(calm)])
    const [first] = await podsOf(failing)
    if (first === undefined) throw new Error('no pod')
    proxy.cut()
    const begin = proxy.turnedAway
    await kubelet.end(first, { exitCode: 70 })
    const created = await create()
    await sleep((OUTAGE_SECONDS * 1000) / 2)
    const middle = proxy.turnedAway
    await sleep((OUTAGE_SECONDS * 1000) / 2)
    const end = proxy.turnedAway
    proxy.heal()
    expect(running.child.exitCode).toBeNull()
    expect(end - middle).toBeLessThan(middle - begin)
    expect(await ns.status(failing, ({ state, attempt }) => state === 'Running' && attempt === 2)).toMatchObject({
      restarts: 1,
      lastFailure: { exitCode: 70 },
    })
    await runs(created)
    expect((await ns.job(calm)).status).toMatchObject({ attempt: 1, restarts: 0 })
    expect([made(failing), made(calm), made(created)]).toEqual([2 * WORKERS, WORKERS, WORKERS])
  })
})

describe('the clock of the operator', () => {
  const preload = { NODE_OPTIONS: `--import=${join(import.meta.dirname, '../../support/clock.ts')}` }

  // Seen failing with the operator's own clock: every startup deadline was over, and jobs ended
  // after maxRestarts.
  it.each([
    ['an hour ahead of the others', 3_600_000],
    ['an hour behind the others', -3_600_000],
  ])('is %s: jobs start, and restart once for a failure', async (_, milliseconds) => {
    await start({ ...preload, CLOCK_OFFSET_MILLISECONDS: String(milliseconds) })
    const name = await create()
    await runs(name)
    const [first] = await podsOf(name)
    if (first === undefined) throw new Error('no pod')
    await kubelet.end(first, { exitCode: 70 })
    const status = await ns.status(name, ({ state, attempt }) => state === 'Running' && attempt === 2)
    expect(status).toMatchObject({ restarts: 1, workers: { ready: WORKERS } })
    expect(made(name)).toBe(2 * WORKERS)
  })

  it.each([
    ['forward', 3_600_000],
    ['back', -3_600_000],
  ])('jumps %s by an hour: jobs that run are left alone, new ones start', async (_, milliseconds) => {
    const running = await start({ ...preload, CLOCK_JUMP_MILLISECONDS: String(milliseconds) })
    const old = await create()
    await runs(old)
    const before = await uids(old)
    running.child.kill('SIGUSR2')
    const fresh = await create()
    await runs(fresh)
    await sleep(2000)
    expect(await uids(old)).toEqual(before)
    expect((await ns.job(old)).status).toMatchObject({ state: 'Running', attempt: 1, restarts: 0 })
    expect(made(old)).toBe(WORKERS)
  })
})

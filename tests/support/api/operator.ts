// Support for tests with a real API server that has the CRD, the operator as a process, and a
// kubelet that does what a test says.

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parse } from 'yaml'
import { API_VERSION, KIND, LABEL } from '../../../crds/contract.ts'
import type { ScMoEJobStatus } from '../../../crds/status.ts'
import { Kube } from '../../../operator/api/kube.ts'
import {
  LEADER_ELECTION_RULES,
  NAMESPACE_RULES,
  NETWORK_POLICY_RULES,
  PROVIDER_RULES,
} from '../../../operator/objects/permissions.ts'
import type { ProviderName } from '../../../operator/objects/providers.ts'
import { type Job, type Kind, type KubeObject, type Pod, pathOf } from '../../../operator/objects/wire.ts'
import { type Cluster, up } from '../../../tools/cluster/cluster.ts'
import { binaries } from '../../../tools/cluster/programs/binaries.ts'
import { freePort } from '../../../tools/free-port.ts'
import { COMPILED } from '../compiled.ts'

export type StoredJob = Job & { spec: Record<string, unknown>; status?: ScMoEJobStatus }
type Patch = { readonly [key: string]: unknown }

/** Longer than anything takes, even if all other tests run at the same time. */
const WAIT_MILLISECONDS = 120_000

/** Waits until `check` returns a value. The error of a time-out names `what`. */
export async function waitFor<T>(
  what: string,
  check: () => Promise<T | undefined | false>,
  milliseconds = WAIT_MILLISECONDS,
): Promise<T> {
  const end = performance.now() + milliseconds
  for (;;) {
    const value = await check()
    if (value !== undefined && value !== false) return value
    if (performance.now() > end) throw new Error(`waited ${milliseconds} ms for: ${what}`)
    await sleep(50)
  }
}

export class Api {
  readonly kube: Kube
  readonly kubeconfig: string
  readonly #cluster: Cluster
  readonly #folder: string
  #collector: ChildProcess | undefined
  #namespaces = 0

  private constructor(cluster: Cluster, folder: string) {
    this.#cluster = cluster
    this.#folder = folder
    this.kubeconfig = cluster.kubeconfig
    this.kube = new Kube(cluster.kubeconfig)
  }

  static async start(): Promise<Api> {
    const folder = mkdtempSync(join(tmpdir(), 'scmoe-api-'))
    const api = new Api(await up({ mode: 'api', stateDir: join(folder, 'c') }), folder)
    const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
    const crd: KubeObject = parse(readFileSync('crds/scmoejob.yaml', 'utf8'))
    await api.kube.call({ method: 'POST', path, body: crd })
    await waitFor('the CRD to be served', async () =>
      api.kube.call<object>({ method: 'GET', path: pathOf('ScMoEJob') }).catch(() => undefined),
    )
    return api
  }

  /**
   * A kubeconfig of a service account with the permissions that operator/objects/permissions.ts
   * lists for a provider, and no others.
   */
  async restricted(provider: ProviderName = 'none'): Promise<string> {
    const api = '/apis/rbac.authorization.k8s.io/v1'
    const account = `operator-${provider}`
    const kubeconfig = join(this.#folder, account)
    if (existsSync(kubeconfig)) return kubeconfig
    const metadata = { name: account }
    const role = (kind: string) => ({ apiGroup: 'rbac.authorization.k8s.io', kind, name: metadata.name })
    const subjects = [{ kind: 'ServiceAccount', name: account, namespace: 'default' }]
    const post = async (path: string, body: object) => this.kube.call({ method: 'POST', path: `${api}${path}`, body })
    const rules = [...NAMESPACE_RULES, ...NETWORK_POLICY_RULES, ...PROVIDER_RULES[provider]]
    await post('/clusterroles', { metadata, rules })
    await post('/clusterrolebindings', { metadata, roleRef: role('ClusterRole'), subjects })
    await post('/namespaces/default/roles', { metadata, rules: LEADER_ELECTION_RULES })
    await post('/namespaces/default/rolebindings', { metadata, roleRef: role('Role'), subjects })
    const config: { users: { user: object }[] } = parse(readFileSync(this.kubeconfig, 'utf8'))
    for (const each of config.users) each.user = { ...each.user, as: `system:serviceaccount:default:${account}` }
    writeFileSync(kubeconfig, JSON.stringify(config))
    return kubeconfig
  }

  /** Starts real controllers of Kubernetes. */
  async control(...controllers: string[]): Promise<void> {
    const paths = await binaries(['kube-controller-manager'])
    const flags = [
      `--controllers=${controllers.join(',')}`,
      '--leader-elect=false',
      '--secure-port=0',
      '--bind-address=127.0.0.1',
    ]
    this.#collector = spawn(paths['kube-controller-manager'], [`--kubeconfig=${this.kubeconfig}`, ...flags], {
      stdio: 'ignore',
    })
  }

  async stop(): Promise<void> {
    this.#collector?.kill('SIGKILL')
    await this.#cluster.down()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async namespace(): Promise<Namespace> {
    const name = `t${++this.#namespaces}-${Math.random().toString(36).slice(2, 6)}`
    await this.kube.call({ method: 'POST', path: '/api/v1/namespaces', body: { metadata: { name } } })
    return new Namespace(this, name)
  }
}

/** A namespace for one test. */
export class Namespace {
  readonly name: string
  readonly kube: Kube

  constructor(api: Api, name: string) {
    this.kube = api.kube
    this.name = name
  }

  async createJob(name: string, spec: Patch = {}, labels: Record<string, string> = {}): Promise<StoredJob> {
    const body = {
      apiVersion: API_VERSION,
      kind: KIND,
      metadata: { name, namespace: this.name, labels },
      spec: { training: { steps: 100 }, ...spec },
    }
    return this.kube.call({ method: 'POST', path: pathOf('ScMoEJob', this.name), body })
  }

  async job(name: string): Promise<StoredJob> {
    return this.kube.call({ method: 'GET', path: pathOf('ScMoEJob', this.name, name) })
  }

  async patchJob(name: string, spec: Patch): Promise<StoredJob> {
    const path = pathOf('ScMoEJob', this.name, name)
    return this.kube.call({ method: 'PATCH', path, body: { spec }, contentType: 'application/merge-patch+json' })
  }

  /** Overwrites the status, for example with a time that lies long ago. */
  async patchStatus(name: string, status: Patch): Promise<StoredJob> {
    const path = `${pathOf('ScMoEJob', this.name, name)}/status`
    return this.kube.call({ method: 'PATCH', path, body: { status }, contentType: 'application/merge-patch+json' })
  }

  async deleteJob(name: string): Promise<void> {
    await this.kube.call({ method: 'DELETE', path: pathOf('ScMoEJob', this.name, name) })
  }

  async list<T extends KubeObject>(kind: Kind): Promise<T[]> {
    return (await this.kube.call<{ items: T[] }>({ method: 'GET', path: pathOf(kind, this.name) })).items
  }

  async podNames(): Promise<string[]> {
    return (await this.list<Pod>('Pod')).map(({ metadata }) => metadata.name).toSorted()
  }

  async events(): Promise<{ reason: string; type: string; note: string }[]> {
    const path = `/apis/events.k8s.io/v1/namespaces/${this.name}/events`
    return (await this.kube.call<{ items: { reason: string; type: string; note: string }[] }>({ method: 'GET', path }))
      .items
  }

  /** Waits until the job's status fits, and returns it. */
  async status(
    name: string,
    fits: (status: ScMoEJobStatus) => boolean,
    milliseconds?: number,
  ): Promise<ScMoEJobStatus> {
    let last: ScMoEJobStatus | undefined
    const look = async () => {
      last = (await this.job(name)).status
      return last !== undefined && fits(last) ? last : undefined
    }
    return waitFor(`job ${name}: ${fits.toString()}`, look, milliseconds).catch((error: unknown) => {
      throw new Error(`last status: ${JSON.stringify(last, null, 1)}`, { cause: error })
    })
  }

  async state(name: string, state: string, reason?: string): Promise<ScMoEJobStatus> {
    return this.status(name, status => status.state === state && (reason === undefined || status.reason === reason))
  }

  /** Waits for all pods of an attempt. */
  async gang(size: number, attempt = 1): Promise<Pod[]> {
    return waitFor(`${size} pods of attempt ${attempt}`, async () => {
      const pods = await this.list<Pod>('Pod')
      const current = pods.filter(
        ({ metadata }) =>
          metadata.labels?.[LABEL.attempt] === String(attempt) && metadata.deletionTimestamp === undefined,
      )
      return current.length === size && pods.length === size
        ? current.toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name))
        : undefined
    })
  }
}

/** `node operator/main.ts` as a child process. */
export class Operator {
  readonly child: ChildProcess
  readonly metricsPort: number
  /** Resolves with the exit code, null after SIGKILL, once the log is complete. */
  readonly ended: Promise<number | null>
  #hasEnded = false
  #log = ''

  private constructor(child: ChildProcess, metricsPort: number) {
    this.child = child
    this.metricsPort = metricsPort
    const collect = (chunk: unknown) => (this.#log += String(chunk))
    child.stdout?.on('data', collect)
    child.stderr?.on('data', collect)
    this.ended = new Promise(resolve =>
      child.once('close', code => {
        this.#hasEnded = true
        resolve(code)
      }),
    )
  }

  /** Starts an operator, and resolves when its caches are full. */
  static async start(kubeconfig: string, ...flags: string[]): Promise<Operator> {
    const operator = await Operator.spawn(kubeconfig, ...flags)
    await operator.logged('caches are full').catch(async (error: unknown) => {
      await operator.stop()
      throw error
    })
    return operator
  }

  static async spawn(kubeconfig: string, ...flags: string[]): Promise<Operator> {
    const port = await freePort()
    const fixed = [
      'operator/main.ts',
      `--kubeconfig=${kubeconfig}`,
      `--metrics-port=${port}`,
      '--health-port=0',
      '--log-level=debug',
    ]
    return new Operator(
      spawn(process.execPath, [...fixed, ...flags], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, ...COMPILED },
      }),
      port,
    )
  }

  get log(): string {
    return this.#log
  }

  async logged(text: string, milliseconds?: number): Promise<void> {
    const look = async () =>
      this.#log.includes(text) || (this.#hasEnded ? Promise.reject(new Error('it has ended')) : undefined)
    await waitFor(`the operator to log "${text}"`, look, milliseconds).catch((error: unknown) => {
      throw new Error(`operator's log: ${this.#log.slice(-4000)}`, { cause: error })
    })
  }

  /** The value of a metric, summed over all labels that are not given. 0 if there is none. */
  async metric(name: string, labels = ''): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text()
    const lines = text.split('\n').filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    return lines.filter(line => line.includes(labels)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  }

  /** Stops the operator. Returns its exit code, null after SIGKILL. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(signal)
    return this.ended
  }
}

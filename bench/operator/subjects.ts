// The two controllers behind one interface: a controller creates gangs of pods from objects.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { API_VERSION, KIND, LABEL } from '../../crds/contract.ts'
import { type Pod, pathOf } from '../../operator/objects/wire.ts'
import { binaries } from '../../tools/cluster/programs/binaries.ts'
import { builtProgram } from '../../tools/cluster/programs/built.ts'
import { moduleFolder } from '../../tools/cluster/programs/modules.ts'
import { bundle } from '../../tools/images/bundle.ts'
import { ROOT, recipeOf } from '../../tools/images/images.ts'
import { until } from './parallel.ts'
import { Program } from './process.ts'
import type { World } from './world.ts'

export type Gang = { namespace: string; name: string; workers: number }
export interface Subject {
  readonly name: string
  start(): Promise<void>
  stop(): Promise<void>
  /** The request that creates one gang. */
  request(gang: Gang): { path: string; body: object }
  /** The name of the gang to which a pod belongs. */
  gangOf(pod: Pod): string
  /** The collections to empty in a namespace after a measurement. */
  leftovers(namespace: string): string[]
  mebibytes(): number
}

/** The operator, started like its image starts it: one file, the same flags and environment. */
export class Operator implements Subject {
  readonly name = 'scmoe'
  readonly #world: World
  readonly #options: { flags: readonly string[]; interval: number }
  #program: Program | undefined

  constructor(world: World, options: { flags: readonly string[]; interval: number }) {
    this.#world = world
    this.#options = options
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error('the operator is not started')
    return this.#program
  }

  async start(): Promise<void> {
    const { folder, kubeconfig } = this.#world
    const { entrypoint, env } = recipeOf('operator')
    const file = join(folder, 'operator.mjs')
    if (!existsSync(file)) await bundle(ROOT, 'operator', folder)
    const node = entrypoint.slice(1).map(word => (word.endsWith('/operator.mjs') ? file : word))
    const args = [...node, `--kubeconfig=${kubeconfig}`, '--health-port=0', ...this.#options.flags]
    const program = new Program(process.execPath, args, { folder, name: `operator-${Date.now()}`, env })
    this.#program = program
    await until('the caches of the operator', () => {
      if (program.ended) throw new Error(program.text())
      return program.text().includes('caches are full')
    })
  }

  async stop(): Promise<void> {
    await this.#program?.stop()
  }

  request({ namespace, name, workers }: Gang): { path: string; body: object } {
    // The shortest back-off that the API allows.
    const backoff = { initialSeconds: 1, maxSeconds: 1 }
    const reporting = { intervalSeconds: this.#options.interval }
    const spec = { training: { steps: 100 }, workers: { replicas: workers }, failurePolicy: { backoff }, reporting }
    const body = { apiVersion: API_VERSION, kind: KIND, metadata: { name, namespace }, spec }
    return { path: pathOf('ScMoEJob', namespace), body }
  }

  gangOf(pod: Pod): string {
    return pod.metadata.labels?.[LABEL.jobName] ?? ''
  }

  leftovers(namespace: string): string[] {
    return (['ScMoEJob', 'Pod', 'Service', 'PodDisruptionBudget'] as const).map(kind => pathOf(kind, namespace))
  }

  mebibytes(): number {
    return this.program.mebibytes()
  }
}

const JOBSETS = '/apis/jobset.x-k8s.io/v1alpha2'

/**
 * JobSet with the Job controller that it needs. There are no admission webhooks; objects are sent
 * as those would leave them. The limits of requests per second are lifted, because by default they
 * would limit the Job controller.
 */
export class JobSet implements Subject {
  readonly name = 'jobset'
  readonly #world: World
  readonly #ports: readonly number[]
  #programs: Program[] = []

  constructor(world: World, ports: readonly number[]) {
    this.#world = world
    this.#ports = ports
  }

  async install(): Promise<void> {
    const crd = join(
      moduleFolder('jobset', 'sigs.k8s.io/jobset'),
      'config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml',
    )
    await this.#world.install(readFileSync(crd, 'utf8'), `${JOBSETS}/jobsets`)
  }

  async start(): Promise<void> {
    const { folder, kubeconfig } = this.#world
    const jobset = await builtProgram('jobset')
    const paths = await binaries(['kube-controller-manager'])
    const config = this.#configure()
    const limits = ['--kube-api-qps=5000', '--kube-api-burst=5000']
    const controllers = '--controllers=job-controller,garbage-collector-controller'
    const manager = ['--leader-elect=false', '--secure-port=0', `--kubeconfig=${kubeconfig}`, controllers, ...limits]
    this.#programs = [
      new Program(paths['kube-controller-manager'], manager, { folder, name: 'kube-controller-manager' }),
      new Program(jobset, [`--kubeconfig=${kubeconfig}`, `--config=${config}`, '--zap-log-level=error'], {
        folder,
        name: 'jobset',
      }),
    ]
    await until('JobSet to be ready', async () => {
      for (const program of this.#programs) if (program.ended) throw new Error(program.text())
      return fetch(`http://127.0.0.1:${this.#ports[2]}/readyz`).then(
        ({ ok }) => ok,
        () => false,
      )
    })
  }

  async stop(): Promise<void> {
    for (const program of this.#programs) await program.stop('SIGKILL')
  }

  request({ namespace, name, workers }: Gang): { path: string; body: object } {
    const container = { name: 'worker', image: 'worker:1', resources: { requests: { cpu: '1' } } }
    const template = { spec: { restartPolicy: 'Never', containers: [container] } }
    const job = { parallelism: workers, completions: workers, completionMode: 'Indexed', backoffLimit: 0, template }
    const body = {
      apiVersion: 'jobset.x-k8s.io/v1alpha2',
      kind: 'JobSet',
      metadata: { name, namespace },
      spec: {
        successPolicy: { operator: 'All' },
        startupPolicy: { startupPolicyOrder: 'AnyOrder' },
        failurePolicy: { maxRestarts: 3 },
        network: { enableDNSHostnames: true, publishNotReadyAddresses: true },
        replicatedJobs: [{ name: 'w', replicas: 1, template: { spec: job } }],
      },
    }
    return { path: `${JOBSETS}/namespaces/${namespace}/jobsets`, body }
  }

  gangOf(pod: Pod): string {
    return pod.metadata.labels?.['jobset.sigs.k8s.io/jobset-name'] ?? ''
  }

  /** JobSets only: the garbage collector deletes the objects that they own. */
  leftovers(namespace: string): string[] {
    return [`${JOBSETS}/namespaces/${namespace}/jobsets`]
  }

  /** The memory of JobSet's own process, without the Job controller. */
  mebibytes(): number {
    return this.#programs[1]?.mebibytes() ?? Number.NaN
  }

  #configure(): string {
    const { folder } = this.#world
    const certificates = join(folder, 'certificates')
    mkdirSync(certificates, { recursive: true })
    const [key, crt] = [join(certificates, 'tls.key'), join(certificates, 'tls.crt')]
    const subject = ['-subj', '/CN=jobset', '-keyout', key, '-out', crt]
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', ...subject],
      { stdio: 'pipe' },
    )
    const [webhook, metrics, health] = this.#ports
    const config = {
      apiVersion: 'config.jobset.x-k8s.io/v1alpha1',
      kind: 'Configuration',
      leaderElection: { leaderElect: false },
      internalCertManagement: { enable: false },
      webhook: { port: webhook, host: '127.0.0.1', certDir: certificates },
      metrics: { bindAddress: `127.0.0.1:${metrics}`, certDir: certificates },
      health: { healthProbeBindAddress: `127.0.0.1:${health}` },
      clientConnection: { qps: 5000, burst: 5000 },
    }
    const path = join(folder, 'jobset.json')
    writeFileSync(path, JSON.stringify(config))
    return path
  }
}

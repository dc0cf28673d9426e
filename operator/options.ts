// The operator's command line. Every flag has an environment variable of the same meaning.

import { hostname } from 'node:os'
import { Command, InvalidArgumentError, Option } from 'commander'
import { PORT } from '../crds/contract.ts'
import { PROVIDERS, type ProviderName } from './objects/providers.ts'

export type Options = {
  kubeconfig: string | undefined
  watchNamespaces: string[]
  workerImage: string
  gpuWorkerImage: string
  schedulingProvider: ProviderName
  schedulerName: string | undefined
  concurrency: number
  apiWritesPerSecond: number
  apiWritesAtOnce: number
  leaderElect: boolean
  leaderElectionNamespace: string | undefined
  leaseSeconds: number
  metricsPort: number
  healthPort: number
  progressPort: number
  watchIdleSeconds: number
  shutdownSeconds: number
  logLevel: string
  identity: string
}

const integer =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text)
    if (!Number.isInteger(value) || value < min || value > max)
      throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`)
    return value
  }

const names = (text: string): string[] =>
  text
    .split(',')
    .map(name => name.trim())
    .filter(name => name !== '')

const flag = (flags: string, description: string, env: string): Option => new Option(flags, description).env(env)

const flags = (): Option[] => [
  flag(
    '--kubeconfig <file>',
    "kubeconfig to use; without it the pod's service account, else $KUBECONFIG or ~/.kube/config",
    'SCMOE_KUBECONFIG',
  ),
  flag('--watch-namespaces <names>', 'namespaces to watch, separated by commas; empty: all', 'SCMOE_WATCH_NAMESPACES')
    .argParser(names)
    .default([], 'all'),
  flag('--worker-image <image>', 'image of workers whose template names none', 'SCMOE_WORKER_IMAGE').default(
    'scmoe/worker:0.1.0',
  ),
  flag('--gpu-worker-image <image>', 'the same of workers with GPUs', 'SCMOE_GPU_WORKER_IMAGE').default(
    'scmoe/worker-gpu:0.1.0',
  ),
  flag(
    '--scheduling-provider <name>',
    'what places all pods of a gang or none; none: the default scheduler, pod by pod',
    'SCMOE_SCHEDULING_PROVIDER',
  )
    .choices(PROVIDERS)
    .default('none'),
  flag(
    '--scheduler-name <name>',
    "schedulerName of pods whose template names none; default: the provider's own",
    'SCMOE_SCHEDULER_NAME',
  ),
  flag('--concurrency <n>', 'jobs reconciled at the same time', 'SCMOE_CONCURRENCY')
    .argParser(integer(1, 256))
    .default(8),
  flag('--api-writes-per-second <n>', 'writes to the API server; 0: no limit', 'SCMOE_API_WRITES_PER_SECOND')
    .argParser(integer(0, 10_000))
    .default(0),
  flag('--api-writes-at-once <n>', 'of these, how many may come together', 'SCMOE_API_WRITES_AT_ONCE')
    .argParser(integer(1, 100_000))
    .default(100),
  flag(
    '--leader-elect',
    'act only while holding a Lease, so that several replicas can run',
    'SCMOE_LEADER_ELECT',
  ).default(false),
  flag(
    '--leader-election-namespace <name>',
    'namespace of the Lease; default: the pod\'s own, else the kubeconfig\'s, else "default"',
    'SCMOE_LEADER_ELECTION_NAMESPACE',
  ),
  flag('--lease-seconds <n>', 'how long a silent leader keeps the Lease', 'SCMOE_LEASE_SECONDS')
    .argParser(integer(3, 300))
    .default(15),
  flag('--metrics-port <port>', 'port of /metrics; 0: none', 'SCMOE_METRICS_PORT')
    .argParser(integer(0, 65_535))
    .default(8080),
  flag('--health-port <port>', 'port of /healthz and /readyz; 0: none', 'SCMOE_HEALTH_PORT')
    .argParser(integer(0, 65_535))
    .default(8081),
  flag('--progress-port <port>', 'port on which rank 0 answers /progress', 'SCMOE_PROGRESS_PORT')
    .argParser(integer(1, 65_535))
    .default(PORT.http),
  flag('--watch-idle-seconds <n>', 'a watch that is silent for this long is opened again', 'SCMOE_WATCH_IDLE_SECONDS')
    .argParser(integer(1, 3600))
    .default(90),
  flag(
    '--shutdown-seconds <n>',
    'how long a stopping operator waits for reconciles under way',
    'SCMOE_SHUTDOWN_SECONDS',
  )
    .argParser(integer(0, 300))
    .default(10),
  flag('--log-level <level>', 'least level that is logged', 'SCMOE_LOG_LEVEL')
    .choices(['trace', 'debug', 'info', 'warn', 'error'])
    .default('info'),
  flag('--identity <name>', 'name in the Lease and in events', 'SCMOE_IDENTITY').default(
    `${hostname()}-${process.pid}`,
    'host name and process id',
  ),
]

/** The flags, without running anything: the documentation's test reads them too. */
export function command(): Command {
  const made = new Command('scmoe-operator')
  made.description('Runs ScMoEJobs: one pod per rank, restarted as a gang, progress in the status.')
  for (const option of flags()) made.addOption(option)
  return made
}

export function parseOptions(argv: readonly string[]): Options {
  return command()
    .parse([...argv], { from: 'user' })
    .opts<Options>()
}

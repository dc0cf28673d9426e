// The operator's command line. Every flag has an environment variable of the same meaning.

import { hostname } from 'node:os'
import { Command, InvalidArgumentError, Option } from 'commander'
import { isRecord } from './objects/json.ts'
import type { ReportReaders } from './objects/network-policy.ts'
import { PROVIDERS, type ProviderName } from './objects/providers.ts'

export type Options = {
  kubeconfig: string | undefined
  watchNamespaces: string[]
  workerImage: string
  gpuWorkerImage: string
  schedulingProvider: ProviderName
  schedulerName: string | undefined
  networkPolicies: boolean
  reportReaders: ReportReaders
  restrictTemplates: boolean
  concurrency: number
  apiWritesPerSecond: number
  apiWritesAtOnce: number
  leaderElect: boolean
  leaderElectionNamespace: string | undefined
  leaseSeconds: number
  metricsPort: number
  healthPort: number
  progressPort: number | undefined
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

const peers = (text: string): ReportReaders => {
  try {
    const given: unknown = JSON.parse(text)
    if (Array.isArray(given) && given.every(isRecord)) return given
  } catch {
    // Not JSON.
  }
  throw new InvalidArgumentError('Give a JSON list of NetworkPolicyPeers, e.g. [{"podSelector":{}}].')
}

const flag = (flags: string, description: string, env: string): Option => new Option(flags, description).env(env)

/** Flags about jobs: which are watched, and how their pods are made. */
const jobFlags = (): Option[] => [
  flag(
    '--kubeconfig <file>',
    "kubeconfig to use; default: the pod's service account, otherwise $KUBECONFIG or ~/.kube/config",
    'SCMOE_KUBECONFIG',
  ),
  flag('--watch-namespaces <names>', 'namespaces to watch, separated by commas; all if empty', 'SCMOE_WATCH_NAMESPACES')
    .argParser(names)
    .default([], 'all'),
  flag('--worker-image <image>', 'image of workers whose template names none', 'SCMOE_WORKER_IMAGE').default(
    'localhost/scmoe/worker:0.1.0',
  ),
  flag(
    '--gpu-worker-image <image>',
    'image of workers with GPUs whose template names none',
    'SCMOE_GPU_WORKER_IMAGE',
  ).default('localhost/scmoe/worker-gpu:0.1.0'),
  flag(
    '--scheduling-provider <name>',
    'scheduler that places all pods of a gang or none of them; with "none" the default scheduler places pod by pod',
    'SCMOE_SCHEDULING_PROVIDER',
  )
    .choices(PROVIDERS)
    .default('none'),
  flag(
    '--scheduler-name <name>',
    'schedulerName of pods whose template names none; default: that of the provider',
    'SCMOE_SCHEDULER_NAME',
  ),
  flag(
    '--network-policies',
    'create a NetworkPolicy for each job: its workers reach each other, and others only their reports',
    'SCMOE_NETWORK_POLICIES',
  ).default(false),
  flag(
    '--report-readers <peers>',
    'NetworkPolicyPeers that these policies let ask for reports, as a JSON list; all if empty. The operator must be one of them',
    'SCMOE_REPORT_READERS',
  )
    .argParser(peers)
    .default([], 'all'),
  flag(
    '--restrict-templates',
    'refuse jobs whose pod template asks for access to the node or for another service account',
    'SCMOE_RESTRICT_TEMPLATES',
  ).default(false),
]

/** Flags about writes: how many go out, and which replica may write. */
const writeFlags = (): Option[] => [
  flag('--concurrency <n>', 'number of jobs reconciled at the same time', 'SCMOE_CONCURRENCY')
    .argParser(integer(1, 256))
    .default(8),
  flag(
    '--api-writes-per-second <n>',
    'limit of writes to the API server; 0 for no limit',
    'SCMOE_API_WRITES_PER_SECOND',
  )
    .argParser(integer(0, 10_000))
    .default(0),
  flag(
    '--api-writes-at-once <n>',
    'number of writes that may be sent at once if there is such a limit',
    'SCMOE_API_WRITES_AT_ONCE',
  )
    .argParser(integer(1, 100_000))
    .default(100),
  flag(
    '--leader-elect',
    'act only while holding a Lease, so that several replicas can run',
    'SCMOE_LEADER_ELECT',
  ).default(false),
  flag(
    '--leader-election-namespace <name>',
    'namespace of the Lease; default: that of the pod, otherwise that of the kubeconfig, otherwise "default"',
    'SCMOE_LEADER_ELECTION_NAMESPACE',
  ),
  flag('--lease-seconds <n>', 'how long a silent leader keeps the Lease', 'SCMOE_LEASE_SECONDS')
    .argParser(integer(3, 300))
    .default(15),
]

/** Flags about the process: ports, time limits, its log and its name. */
const processFlags = (): Option[] => [
  flag('--metrics-port <port>', 'port of /metrics; 0 for none', 'SCMOE_METRICS_PORT')
    .argParser(integer(0, 65_535))
    .default(8080),
  flag('--health-port <port>', 'port of /healthz and /readyz; 0 for none', 'SCMOE_HEALTH_PORT')
    .argParser(integer(0, 65_535))
    .default(8081),
  flag(
    '--progress-port <port>',
    "port on which rank 0 answers /progress; default: the job's network.httpPort",
    'SCMOE_PROGRESS_PORT',
  ).argParser(integer(1, 65_535)),
  flag('--watch-idle-seconds <n>', 'a watch that is silent for so long is opened again', 'SCMOE_WATCH_IDLE_SECONDS')
    .argParser(integer(1, 3600))
    .default(90),
  flag(
    '--shutdown-seconds <n>',
    'how long a stopping operator waits for the reconciles under way',
    'SCMOE_SHUTDOWN_SECONDS',
  )
    .argParser(integer(0, 300))
    .default(10),
  flag('--log-level <level>', 'lowest level that is logged', 'SCMOE_LOG_LEVEL')
    .choices(['trace', 'debug', 'info', 'warn', 'error'])
    .default('info'),
  flag('--identity <name>', 'name of this replica in the Lease and in events', 'SCMOE_IDENTITY').default(
    `${hostname()}-${process.pid}`,
    'host name and process id',
  ),
]

/** The command line, which the documentation and its test read, too. */
export function command(): Command {
  const made = new Command('scmoe-operator')
  made.description(
    'Runs ScMoEJobs: creates their pods, restarts them as a gang, and writes their progress into the status.',
  )
  for (const option of [...jobFlags(), ...writeFlags(), ...processFlags()]) made.addOption(option)
  return made
}

export function parseOptions(argv: readonly string[]): Options {
  return command()
    .parse([...argv], { from: 'user' })
    .opts<Options>()
}

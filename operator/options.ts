// The operator's command line. Every flag can also be given as an environment variable.

import { hostname } from 'node:os'
import { Command, InvalidArgumentError, Option } from 'commander'
import { PORT } from '../crds/contract.ts'

export type Options = {
  kubeconfig?: string
  watchNamespaces: string[]
  workerImage: string
  concurrency: number
  leaderElect: boolean
  leaderElectionNamespace?: string
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

/** The flags, without running anything: the documentation's test reads them too. */
export function command(): Command {
  return new Command('scmoe-operator')
    .description('Runs ScMoEJobs: one pod per rank, restarted as a gang, progress in the status.')
    .addOption(
      flag(
        '--kubeconfig <file>',
        'kubeconfig to use; without it the pod\'s service account, else $KUBECONFIG or ~/.kube/config',
        'SCMOE_KUBECONFIG',
      ),
    )
    .addOption(
      flag('--watch-namespaces <names>', 'namespaces to watch, separated by commas; empty: all', 'SCMOE_WATCH_NAMESPACES')
        .argParser(names)
        .default([], 'all'),
    )
    .addOption(
      flag('--worker-image <image>', 'image of workers whose template names none', 'SCMOE_WORKER_IMAGE').default(
        'scmoe-worker:0.1.0',
      ),
    )
    .addOption(
      flag('--concurrency <n>', 'jobs reconciled at the same time', 'SCMOE_CONCURRENCY')
        .argParser(integer(1, 256))
        .default(8),
    )
    .addOption(
      flag('--leader-elect', 'act only while holding a Lease, so that several replicas can run', 'SCMOE_LEADER_ELECT').default(
        false,
      ),
    )
    .addOption(
      flag(
        '--leader-election-namespace <name>',
        'namespace of the Lease; default: the pod\'s own, else the kubeconfig\'s, else "default"',
        'SCMOE_LEADER_ELECTION_NAMESPACE',
      ),
    )
    .addOption(
      flag('--lease-seconds <n>', 'how long a silent leader keeps the Lease', 'SCMOE_LEASE_SECONDS')
        .argParser(integer(3, 300))
        .default(15),
    )
    .addOption(
      flag('--metrics-port <port>', 'port of /metrics; 0: none', 'SCMOE_METRICS_PORT')
        .argParser(integer(0, 65_535))
        .default(8080),
    )
    .addOption(
      flag('--health-port <port>', 'port of /healthz and /readyz; 0: none', 'SCMOE_HEALTH_PORT')
        .argParser(integer(0, 65_535))
        .default(8081),
    )
    .addOption(
      flag('--progress-port <port>', 'port on which rank 0 answers /progress', 'SCMOE_PROGRESS_PORT')
        .argParser(integer(1, 65_535))
        .default(PORT.http),
    )
    .addOption(
      flag('--watch-idle-seconds <n>', 'a watch that is silent for this long is opened again', 'SCMOE_WATCH_IDLE_SECONDS')
        .argParser(integer(1, 3600))
        .default(90),
    )
    .addOption(
      flag('--shutdown-seconds <n>', 'how long a stopping operator waits for reconciles under way', 'SCMOE_SHUTDOWN_SECONDS')
        .argParser(integer(0, 300))
        .default(10),
    )
    .addOption(
      flag('--log-level <level>', 'least level that is logged', 'SCMOE_LOG_LEVEL')
        .choices(['trace', 'debug', 'info', 'warn', 'error'])
        .default('info'),
    )
    .addOption(
      flag('--identity <name>', 'name in the Lease and in events', 'SCMOE_IDENTITY').default(
        `${hostname()}-${process.pid}`,
        'host name and process id',
      ),
    )
}

export function parseOptions(argv: readonly string[]): Options {
  return command().parse([...argv], { from: 'user' }).opts<Options>()
}

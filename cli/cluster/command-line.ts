// The options and help texts of the commands for jobs in a cluster: top, why, logs, trace, suspend
// and resume. They also run as `kubectl scmoe …`.

import type { Command } from 'commander'
import { between, wholeNumber } from '../arguments.ts'
import { whenNobodyReads } from '../output.ts'
import { wrapped } from '../sentence.ts'
import { Cluster, type ClusterOptions } from './client.ts'
import { findJob, podsOf } from './jobs.ts'
import { type LogsOptions, logsCommand } from './logs.ts'
import { suspendCommand } from './suspend.ts'
import { type TopOptions, topCommand } from './top.ts'
import { type TraceOptions, traceCommand } from './trace.ts'
import { why } from './why.ts'

export interface Wiring {
  exit: (code: number) => void
  /** Writes plain text, whatever the text has. */
  print: (text: string) => void
  /** Writes text as it is. */
  printStyled: (text: string) => void
}

/** Adds the options that kubectl has under the same names. */
const ofCluster = (command: Command) =>
  command
    .option('-n, --namespace <name>', 'namespace (default: the namespace of the context)')
    .option('--context <name>', 'context of the kubeconfig (default: the current one)')
    .option('--kubeconfig <file>', 'path of the kubeconfig (default: $KUBECONFIG or ~/.kube/config)')

const WIDTH = 100

export function addClusterCommands(scmoe: Command, wiring: Wiring): void {
  const { exit, print } = wiring
  addTop(scmoe, wiring)
  ofCluster(scmoe.command('why').summary('say what a job waits for, or why it failed'))
    .description('Say in one paragraph what a job waits for, or why it failed, and what to do about it.')
    .argument('<job>', 'name of the ScMoEJob')
    .action(async (name: string, options: ClusterOptions) => {
      const cluster = await Cluster.connect(options)
      const job = await findJob(cluster, name)
      const text = why({ job, pods: await podsOf(cluster, job), now: Date.now() })
      print(wrapped(text, Math.min(process.stdout.columns || WIDTH, WIDTH)))
      exit(0)
    })
  addLogs(scmoe, wiring)
  addTrace(scmoe, wiring)
  for (const [verb, suspend, summary] of [
    ['suspend', true, 'stop the pods of a job'],
    ['resume', false, 'let a suspended job continue'],
  ] as const)
    ofCluster(scmoe.command(verb).summary(summary))
      .description(
        suspend
          ? 'Set spec.suspend. The workers write a checkpoint, if the job has a volume for checkpoints, and their pods are deleted.'
          : 'Clear spec.suspend. The workers start again, from the newest checkpoint if there is one.',
      )
      .argument('<job>', 'name of the ScMoEJob')
      .action(async (name: string, options: ClusterOptions) => {
        print(await suspendCommand(await Cluster.connect(options), name, suspend))
        exit(0)
      })
}

function addTop(scmoe: Command, { exit, printStyled }: Wiring): void {
  ofCluster(scmoe.command('top').summary('list jobs with their speed'))
    .description(
      'List jobs with step, tokens per second (of all ranks, and per rank), overlap and time left, the fastest first. On a terminal the table is updated until Ctrl-C and shows the trend of the tokens per second; elsewhere it is printed once.',
    )
    .option('-A, --all-namespaces', 'list the jobs of all namespaces')
    .option('-w, --watch', 'print the table again and again, also without a terminal')
    .option('--once', 'print the table once, also on a terminal')
    .option('--interval <seconds>', 'time between two updates', between(0.2, 3600), 2)
    .action(async (options: TopOptions & ClusterOptions) => {
      whenNobodyReads(process, () => process.exit())
      await topCommand(await Cluster.connect(options), options, printStyled)
      exit(0)
    })
}

function addLogs(scmoe: Command, { exit, print }: Wiring): void {
  ofCluster(scmoe.command('logs').summary('print logs of workers, those of the first failure first'))
    .description(
      "Print the logs of a job's workers. The worker that failed first comes first, then other workers that failed, then the rest by rank.",
    )
    .argument('<job>', 'name of the ScMoEJob')
    .option('--rank <n>', 'print only the log of this rank', wholeNumber(0))
    .option('--tail <n>', 'print the last n lines of each worker', wholeNumber(0), 40)
    .option('--all', 'print the logs of all workers, not only of the first eight')
    .option('-f, --follow', 'continue with new lines until Ctrl-C')
    .option('--raw', 'print lines as the workers write them, one JSON object each')
    .action(async (name: string, options: LogsOptions & ClusterOptions) => {
      whenNobodyReads(process, () => process.exit())
      exit(await logsCommand(await Cluster.connect(options), { ...options, name }, print))
    })
}

function addTrace(scmoe: Command, { exit, print }: Wiring): void {
  ofCluster(scmoe.command('trace').summary('fetch the last profiled step for Perfetto'))
    .description(
      'Fetch the Chrome trace of the last profiled step from rank 0 of a running job, through the API server. Open it in ui.perfetto.dev.',
    )
    .argument('<job>', 'name of the ScMoEJob')
    .option('-o, --output <file>', 'file to write (default: <job>-trace.json)')
    .option('--all-ranks', 'fetch the steps of all ranks into one file')
    .action(async (name: string, options: TraceOptions & ClusterOptions) => {
      print(await traceCommand(await Cluster.connect(options), name, options))
      exit(0)
    })
}

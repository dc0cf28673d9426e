// The command line of scmoe: what there is, without running anything. docs/cli.md is written from it.

import { Command, Option } from 'commander'
import packageFile from '../package.json' with { type: 'json' }
import { notNegative, positive, share, wholeNumber, wholeNumbers } from './arguments.ts'
import { addClusterCommands } from './cluster/command-line.ts'
import { type DoctorOptions, doctorCommand } from './doctor.ts'
import { type EvalOptions, evalCommand } from './eval.ts'
import { type PlanOptions, planCommand } from './plan/plan.ts'
import { type RunOptions, runCommand } from './run/run.ts'
import { type SimulateOptions, simulateCommand } from './simulate/simulate.ts'
import { validateCommand } from './validate.ts'

const print = (text: string) => console.log(text)

/** `exit` takes the exit code of the command that ran. */
export function program(exit: (code: number) => void): Command {
  const scmoe = new Command('scmoe')
    .description(
      'Train shortcut-connected mixture-of-experts models: check, look at, and run ScMoEJobs without a cluster; look after those in one, also as `kubectl scmoe`.',
    )
    .version(packageFile.version)
    .configureHelp({ helpWidth: 100 })
    .showHelpAfterError('`scmoe --help` lists the commands, `scmoe COMMAND --help` the options of one')

  scmoe
    .command('validate')
    .summary('check files as the API server would')
    .description(
      'Check ScMoEJobs with the answers the API server would give: unknown fields, wrong types, broken rules, each with its line. Exit code 1 if anything is wrong.',
    )
    .argument('<files...>', 'YAML or JSON files, several documents each; - for standard input')
    .action((files: string[]) => exit(validateCommand(files, print) ? 0 : 1))

  scmoe
    .command('plan')
    .summary('show what a job would do')
    .description(
      'Show what the operator would create for a job and, drawn to scale, how its workers would run one step. Nothing is run.',
    )
    .argument('<file>', 'file with one ScMoEJob')
    .option('--json', 'objects and programs in full')
    .option('--rank <n>', 'whose program', wholeNumber(0), 0)
    .option(
      '--worker-image <image>',
      'image of workers whose template names none',
      `scmoe/worker:${packageFile.version}`,
    )
    .option('--results <folder>', 'output folder of `scmoe run` of this job: predict from what it measured')
    .option('--gigaflops <n>', 'assumed speed of a worker, 1e9 floating-point operations per second', positive, 50)
    .option('--megabytes-per-second <n>', 'assumed speed of the network', positive, 1000)
    .option('--latency-microseconds <n>', 'assumed time of the smallest message', positive, 50)
    .action((file: string, options: PlanOptions) => {
      print(planCommand(file, options))
      exit(0)
    })

  scmoe
    .command('simulate')
    .summary('predict a job in larger worlds')
    .description(
      'Predict step time, tokens per second, overlap and the best schedule with more ranks, each with the work it has now: compute is measured on this machine, communication calculated from the network given. Experts are spread over spec.parallelism.expertParallelSize ranks, or else over as many as divide both experts and ranks.',
    )
    .argument('<file>', 'file with one ScMoEJob')
    .option('--ranks <n,n,...>', 'sizes of the worlds (default: 8,64,512; with --validate 2,4)', wholeNumbers)
    .option('--bandwidth <MB/s>', 'of one rank, each way', positive, 1000)
    .option('--latency <us>', 'time of the smallest message', notNegative, 50)
    .option('--peer <us>', 'time that each further peer adds to a collective', notNegative, 10)
    .option('--contention <share>', 'of a processor that communication takes from compute while it runs', share, 0)
    .option('--threads <n>', 'threads that compute on a rank (default: the cores of this machine)', wholeNumber(1))
    .option('--results <folder>', 'output folder of `scmoe run` of this job: its times of compute instead of measuring')
    .option('--validate', 'run worlds of 2 and 4 ranks on this machine and compare with what is predicted for them')
    .option('--json', 'one JSON list instead of text')
    .action(async (file: string, options: SimulateOptions) => {
      print(await simulateCommand(file, options))
      exit(0)
    })

  scmoe
    .command('run')
    .summary('train on this machine')
    .description(
      'Train a job on this machine, one process per rank; continues from the newest checkpoint in the output folder.',
    )
    .argument('<file>', 'file with one ScMoEJob')
    .option('--output <folder>', 'checkpoints, losses, trace and logs (default: ./scmoe-out/<name>)')
    .option('--replicas <n>', 'instead of spec.workers.replicas', wholeNumber(1))
    .option('--steps <n>', 'instead of spec.training.steps', wholeNumber(1))
    .option('--trace <file>', 'write a Chrome trace of the last step of all ranks, for ui.perfetto.dev')
    .option('--json', 'one JSON object at the end instead of text')
    .action(async (file: string, options: RunOptions) => exit(await runCommand(file, options)))

  addEval(scmoe, exit)
  addDoctor(scmoe, exit)
  addClusterCommands(scmoe, { exit, print })
  return scmoe
}

function addEval(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('eval')
    .summary('losses and gradients of a checkpoint')
    .description(
      'Evaluate a checkpoint over a file of tokens, on one rank whatever number of ranks wrote it. The file is cut end to end into sequences of spec.training.sequenceLength; what is left at its end is not evaluated. All figures are means over all tokens predicted: cross-entropy; aux and z loss, the load-balance and router z losses added over MoE layers; loss, the cross-entropy plus these times their coefficients, which is what training minimises; and the norm of the gradient of that loss, not clipped. The checkpoint may be written by another program: docs/checkpoints.md names the tensors.',
    )
    .requiredOption(
      '--checkpoint <path>',
      "a checkpoint's folder, an output folder of `scmoe run` (its newest checkpoint), or a folder or file of .safetensors weights, which needs --job",
    )
    .requiredOption('--tokens <file>', 'text or token numbers')
    .option(
      '--job <file>',
      'file with the ScMoEJob whose model it is. Without it a checkpoint knows its model, but no token is dropped and the coefficients are the defaults',
    )
    .addOption(
      new Option(
        '--type <type>',
        'what the tokens file holds (default: spec.data.tokens of the job, else bytes)',
      ).choices(['bytes', 'uint16', 'uint32']),
    )
    .option('--sequences <n>', 'evaluate the first n (default: all)', wholeNumber(1))
    .option(
      '--batch <n>',
      'sequences at a time; capacity and the balance loss are per batch (default: those of a rank of the job in a micro-batch, else 8)',
      wholeNumber(1),
    )
    .option('--threads <n>', 'threads that compute (default: the cores of this machine)', wholeNumber(1))
    .option('--loss-only', 'no gradient norm: a third of the time, half of the memory')
    .option(
      '--gradients <file>',
      'write the gradient of the loss above, the mean over all sequences evaluated and not clipped: one safetensors file, F32, names and shapes of the parameters',
    )
    .option('--json', 'one JSON object instead of text')
    .action(async (options: EvalOptions) => {
      print(await evalCommand(options))
      exit(0)
    })
}

function addDoctor(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('doctor')
    .summary('say what a worker would find here')
    .description(
      'Say what this machine, or the pod this runs in, has for a worker: processor, memory, GPUs with driver, CUDA backend and NCCL, network interfaces; and what would be chosen. With --peers, started once for each rank with its own --rank, the speed of the links between them is measured. Exit code 1: a worker could not run here as asked.',
    )
    .addOption(new Option('--backend <name>', 'what a worker is to compute with').choices(['cpu', 'cuda']))
    .option('--peers <host:port,...>', 'every rank, in order', text => text.split(','))
    .option('--rank <n>', 'which of the peers this is', wholeNumber(0), 0)
    .option('--json', 'one JSON object instead of text')
    .action(async (options: DoctorOptions) => exit(await doctorCommand(options, print)))
}

// The command line of scmoe: all commands with their options. docs/cli.md is written from it.

import { Command, Option } from 'commander'
import { plainText } from '../crds/contract.ts'
import packageFile from '../package.json' with { type: 'json' }
import { notNegative, positive, share, wholeNumber, wholeNumbers } from './arguments.ts'
import { addClusterCommands } from './cluster/command-line.ts'
import { type DoctorOptions, doctorCommand } from './doctor.ts'
import { type EvalOptions, evalCommand } from './eval.ts'
import { GPU_NAMES } from './plan/devices.ts'
import { type PlanOptions, planCommand } from './plan/plan.ts'
import { type RunOptions, runCommand } from './run/run.ts'
import { type SimulateOptions, simulateCommand } from './simulate/simulate.ts'
import { validateCommand } from './validate.ts'

const print = (text: string) => console.log(plainText(text))
/** For text whose style is its own, and in which the words of others are plain already. */
const printStyled = (text: string) => console.log(text)

/** `exit` is called with the exit code of the command that ran. */
export function program(exit: (code: number) => void): Command {
  const scmoe = new Command('scmoe')
    .description(
      'Train shortcut-connected mixture-of-experts models. Check, plan and run ScMoEJobs without a cluster, and look after jobs in a cluster, also as `kubectl scmoe`.',
    )
    .version(packageFile.version)
    .configureHelp({ helpWidth: 100 })
    .showHelpAfterError('`scmoe --help` lists the commands; `scmoe COMMAND --help` lists the options of a command.')

  scmoe
    .command('validate')
    .summary('check files as the API server would')
    .description(
      'Check ScMoEJobs and report what the API server would refuse: unknown fields, wrong types and broken rules, each with its line and what to do. Objects of other kinds are named and not checked. The exit code is 1 if anything is wrong, or if there is no ScMoEJob; warnings do not count.',
    )
    .argument(
      '<files...>',
      'YAML or JSON files, each with one or more documents or lists of objects; folders with such files; - for standard input',
    )
    .option(
      '--json',
      'print one JSON object: valid, the numbers of jobs and errors, and findings. A finding has kind (job, error, warning, skipped or note), file, line, and name and namespace of a job, or message; an error also has path, the field, and remedy, what to do',
    )
    .action((files: string[], options: { json?: boolean }) => exit(validateCommand(files, options, print) ? 0 : 1))

  addPlan(scmoe, exit)
  addSimulate(scmoe, exit)
  addRun(scmoe, exit)
  addEval(scmoe, exit)
  addDoctor(scmoe, exit)
  addClusterCommands(scmoe, { exit, print, printStyled })
  return scmoe
}

function addPlan(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('plan')
    .summary('show what a job would create and run')
    .description(
      'Show what the operator would create for a job, and draw to scale how a worker would run one step. Nothing is created or run.',
    )
    .argument('<file>', 'file with one ScMoEJob')
    .option('--json', 'print the objects and programs in full, as JSON')
    .option('--rank <n>', 'rank whose program is shown', wholeNumber(0), 0)
    .option(
      '--worker-image <image>',
      'image of a worker whose template names no image; default: the one that tools/images builds here',
    )
    .option('--results <folder>', 'output folder of a `scmoe run` of this job; predict from the times measured there')
    .addOption(
      new Option(
        '--device <gpu>',
        "GPU whose speed and memory a job with GPUs is planned for (default: the one that nvidia.com/gpu.product of the template's nodeSelector names, otherwise an H100)",
      ).choices(GPU_NAMES),
    )
    .option(
      '--gigaflops <n>',
      "assumed speed of a rank, in 1e9 floating-point operations per second (default: 50; with GPUs 40 % of the GPU's peak)",
      positive,
    )
    .option(
      '--megabytes-per-second <n>',
      'assumed bandwidth of the network of a rank (default: 1000; with GPUs 70 % of NVLink, or of 200 Gbit/s between pods)',
      positive,
    )
    .option('--latency-microseconds <n>', 'assumed time of the smallest message (default: 50; with GPUs 20)', positive)
    .action((file: string, options: PlanOptions) => {
      print(planCommand(file, options))
      exit(0)
    })
}

function addSimulate(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('simulate')
    .summary('predict the speed of a job on more ranks')
    .description(
      'Predict step time, tokens per second, overlap and the best schedule on more ranks, each of which has as much work as now. The times of compute are measured on this machine; the times of communication are calculated from the network options. The experts are spread over spec.parallelism.expertParallelSize ranks; if that is not set, over the greatest common divisor of the numbers of experts and ranks.',
    )
    .argument('<file>', 'file with one ScMoEJob')
    .option('--ranks <n,n,...>', 'numbers of ranks to predict (default: 8,64,512; with --validate 2,4)', wholeNumbers)
    .option('--bandwidth <MB/s>', 'bandwidth of one rank, in each direction', positive, 1000)
    .option('--latency <us>', 'time of the smallest message', notNegative, 50)
    .option('--peer <us>', 'time that each peer adds to a collective', notNegative, 10)
    .option(
      '--contention <share>',
      'share of a processor that communication takes from compute while it runs',
      share,
      0,
    )
    .option('--threads <n>', 'compute threads of a rank (default: the cores of this machine)', wholeNumber(1))
    .option('--results <folder>', 'output folder of a `scmoe run` of this job; use the times measured there')
    .option('--validate', 'run 2 and 4 ranks on this machine and compare their speed with the prediction')
    .option('--json', 'print one JSON list instead of text')
    .action(async (file: string, options: SimulateOptions) => {
      print(await simulateCommand(file, options))
      exit(0)
    })
}

function addRun(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('run')
    .summary('train on this machine')
    .description(
      'Train a job on this machine, one process per rank. If the output folder has a checkpoint, continue from the newest one.',
    )
    .argument('<file>', 'file with one ScMoEJob')
    .option('--output <folder>', 'folder for checkpoints, losses, traces and logs (default: ./scmoe-out/<name>)')
    .option('--replicas <n>', 'replaces spec.workers.replicas', wholeNumber(1))
    .option('--steps <n>', 'replaces spec.training.steps', wholeNumber(1))
    .option('--trace <file>', 'write a Chrome trace of the last step of all ranks; open it in ui.perfetto.dev')
    .option('--json', 'print one JSON object at the end instead of text')
    .action(async (file: string, options: RunOptions) => exit(await runCommand(file, options)))
}

function addEval(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('eval')
    .summary('compute losses and gradients of a checkpoint')
    .description(
      'Evaluate a checkpoint over a file of tokens, on one rank, however many ranks wrote the checkpoint. The file is cut into sequences of spec.training.sequenceLength; the rest at its end is not evaluated. All figures are means over the predicted tokens: cross-entropy; aux loss and z loss, the load-balance and router z losses added over the MoE layers; loss, the cross-entropy plus these losses times their coefficients, which training minimises; and gradient norm, the norm of the gradient of loss, not clipped. Another program may have written the checkpoint: docs/checkpoints.md names the tensors.',
    )
    .requiredOption(
      '--checkpoint <path>',
      'folder of a checkpoint, output folder of a `scmoe run` (uses its newest checkpoint), or folder or file of .safetensors weights (needs --job)',
    )
    .requiredOption('--tokens <file>', 'file with text or token numbers')
    .option(
      '--job <file>',
      'file with the ScMoEJob of the model. Without it, the model comes from the checkpoint, no token is dropped, and the loss coefficients have their defaults',
    )
    .addOption(
      new Option(
        '--type <type>',
        'type of the values in the tokens file (default: what the checkpoint was trained on, otherwise data.tokens of a job with data.path, otherwise bytes if the vocabulary has at most 256)',
      ).choices(['bytes', 'uint16', 'uint32']),
    )
    .option('--sequences <n>', 'evaluate only the first n sequences (default: all)', wholeNumber(1))
    .option(
      '--batch <n>',
      'sequences at a time; capacity and the balance loss depend on it (default: the sequences of one rank in a micro-batch of the job, otherwise 8)',
      wholeNumber(1),
    )
    .option('--threads <n>', 'compute threads (default: the cores of this machine)', wholeNumber(1))
    .option('--loss-only', 'compute no gradients; takes a third of the time and half of the memory')
    .option(
      '--gradients <file>',
      'write the gradient of loss to a safetensors file: the mean over all sequences, not clipped, in F32, with the names and shapes of the parameters',
    )
    .option('--json', 'one JSON object instead of text')
    .action(async (options: EvalOptions) => {
      printStyled(await evalCommand(options))
      exit(0)
    })
}

function addDoctor(scmoe: Command, exit: (code: number) => void): void {
  scmoe
    .command('doctor')
    .summary('show what a worker would find on this machine')
    .description(
      'Show what this machine, or the pod in which this runs, has for a worker: processor, memory, GPUs with driver, CUDA backend and NCCL, and network interfaces; and show what a worker would use. To measure the speed of the links between ranks, start this once for each rank, with the same --peers and its own --rank. The exit code is 1 if a worker could not run here as asked.',
    )
    .addOption(new Option('--backend <name>', 'device that the worker is to compute on').choices(['cpu', 'cuda']))
    .option('--peers <host:port,...>', 'addresses of all ranks, in order', text => text.split(','))
    .option('--rank <n>', 'rank of this process among the peers', wholeNumber(0), 0)
    .option('--json', 'one JSON object instead of text')
    .action(async (options: DoctorOptions) => exit(await doctorCommand(options, print)))
}

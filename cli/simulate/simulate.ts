// scmoe simulate: predicts a step of a job on more ranks, each with as many tokens as now. Compute
// is measured on this machine, communication is calculated (predict.ts), and the schedule is chosen
// like a worker does.

import { availableParallelism } from 'node:os'
import { plainText } from '../../crds/contract.ts'
import { brokenByEnvironment } from '../../crds/environment.ts'
import { resolveModel } from '../../crds/presets.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { type Broken, brokenRules, brokenText } from '../../crds/rules.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { modelConfig } from '../../worker/model/config.ts'
import { type Job, JobFileError, readJob, withDataPath } from '../job-file.ts'
import { time } from '../sentence.ts'
import { computedOfRun, measureCompute } from './measure.ts'
import { type Computed, type Network, type Prediction, predict } from './predict.ts'
import { type Validation, validateWorld } from './validate.ts'

export interface SimulateOptions {
  ranks?: number[] | undefined
  /** MB/s. */
  bandwidth: number
  /** Microseconds. */
  latency: number
  peer: number
  contention: number
  threads?: number | undefined
  results?: string | undefined
  validate?: boolean | undefined
  json?: boolean | undefined
}

const RANKS = [8, 64, 512]
const VALIDATED = [2, 4]

/** The text, or the figures as JSON. Throws JobFileError. */
export async function simulateCommand(file: string, options: SimulateOptions): Promise<string> {
  const read = readJob(file)
  const job = { ...read, spec: withDataPath(read.spec, file, note => console.error(`note: ${plainText(note)}`)) }
  demandMeasurable(job, options)
  if (options.validate) {
    const found: Validation[] = []
    for (const ranks of options.ranks ?? VALIDATED)
      found.push(await validateWorld(job.name, onCpus(specOf(job, ranks))))
    return options.json ? JSON.stringify(found, undefined, 2) : validationText(found)
  }
  const found = await predictions(job, options)
  return options.json ? JSON.stringify(found, undefined, 2) : text(job, found, options)
}

/** Measurements on this machine use CPUs. */
function demandMeasurable({ spec }: Job, { results, validate }: SimulateOptions): void {
  if (results !== undefined && !validate) return
  const useGpus = 'give --results of a run of the job, without --validate'
  demand(brokenByEnvironment(spec, { worldSize: worldSizeOf(spec), backend: 'cpu', useGpus }))
}

function demand(broken: readonly Broken[]): void {
  if (broken.length > 0) throw new JobFileError(brokenText(broken))
}

async function predictions(job: Job, options: SimulateOptions): Promise<Prediction[]> {
  const network: Network = {
    bytesPerSecond: options.bandwidth * 1e6,
    latencyMicroseconds: options.latency,
    peerMicroseconds: options.peer,
  }
  const computeThreads = options.threads ?? availableParallelism()
  const ofRun = options.results === undefined ? undefined : computedOfRun(options.results)
  // Worlds with the same number of experts per rank have the same compute, so measure it once.
  const measured = new Map<number, Computed>()
  const found: Prediction[] = []
  for (const ranks of options.ranks ?? RANKS) {
    const spec = specOf(job, ranks)
    const model = modelConfig(spec, ranks)
    const computed =
      ofRun ??
      measured.get(model.expertParallelSize) ??
      (await measureCompute({ spec, worldSize: ranks, computeThreads, processes: 1 }))
    measured.set(model.expertParallelSize, computed)
    found.push(predict({ model, computed, network, contention: options.contention }, job.spec.overlap))
  }
  return found
}

/**
 * The job on another number of ranks, each in a worker of its own and with as much work as now. The
 * experts are spread over as many ranks as the job says, otherwise over the greatest common divisor
 * of experts and ranks. Throws JobFileError if the job cannot have so many ranks.
 */
function specOf({ name, spec }: Job, ranks: number): ScMoEJobSpec {
  const { minReplicas: _, ...workers } = spec.workers
  const batch = (spec.training.globalBatchSequences / worldSizeOf(spec)) * ranks
  const { experts } = resolveModel(spec.model)
  const expertParallelSize = spec.parallelism.expertParallelSize ?? greatestCommonDivisor(experts, ranks)
  const larger = {
    ...spec,
    training: { ...spec.training, globalBatchSequences: batch },
    parallelism: { ...spec.parallelism, expertParallelSize },
    workers: { ...workers, replicas: ranks, gpusPerWorker: Math.min(1, spec.workers.gpusPerWorker) },
  }
  demand(brokenRules(larger, name))
  return larger
}

/** The job as the CPUs of this machine run it. */
function onCpus(spec: ScMoEJobSpec): ScMoEJobSpec {
  const { nccl: _, ...overlap } = spec.overlap
  return { ...spec, overlap: { ...overlap, exchange: 'Counted' }, workers: { ...spec.workers, gpusPerWorker: 0 } }
}

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b))

const milliseconds = (value: number) => time(1000 * value)

function text({ name, spec }: Job, found: readonly Prediction[], options: SimulateOptions): string {
  const perRank = spec.training.globalBatchSequences / worldSizeOf(spec)
  const source = options.results === undefined ? 'measured on this machine' : `from ${options.results}`
  const rows = found.map(each => [
    String(each.ranks),
    String(each.expertParallelSize),
    milliseconds(each.stepMilliseconds),
    String(Math.round(each.tokensPerSecond)),
    milliseconds(each.communicationMilliseconds),
    `${each.hiddenPercent.toFixed(0)} %`,
    `${(each.sequentialMilliseconds / each.stepMilliseconds).toFixed(2)} x`,
    each.schedule,
  ])
  const head = ['ranks', 'experts over', 'step', 'tokens/s', 'all-to-all', 'hidden', 'vs sequential', 'schedule']
  return [
    `${name}: ${perRank} sequences of ${spec.training.sequenceLength} tokens per rank and step; compute ${source},`,
    `network of ${options.bandwidth} MB/s each way, ${options.latency} us, and ${options.peer} us per peer of a collective`,
    '',
    ...table([head, ...rows]),
  ].join('\n')
}

function validationText(found: readonly Validation[]): string {
  const rows = found.map(each => [
    String(each.ranks),
    milliseconds(each.predictedMilliseconds),
    milliseconds(each.measuredMilliseconds),
    `${each.errorPercent >= 0 ? '+' : ''}${each.errorPercent.toFixed(1)} %`,
    `${each.megabytesPerSecond.toFixed(0)} MB/s`,
    `${each.latencyMicroseconds.toFixed(0)} us`,
    each.schedule,
  ])
  const head = ['ranks', 'predicted', 'measured', 'error', 'bandwidth', 'latency', 'schedule']
  return [
    'Ranks run as processes on this machine: the predicted step beside the measured one',
    '',
    ...table([head, ...rows]),
  ].join('\n')
}

/** Aligns all columns but the last to the right. */
function table(rows: readonly string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  return rows.map(row =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
}

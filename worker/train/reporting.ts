// The reports of training: its record and metrics, losses.jsonl, the log, the trace of the last
// step, and the summary at the end.

import type { Logger } from 'pino'
import type { WorkerConfig } from '../config.ts'
import { keepJob } from '../report/job-copy.ts'
import { LossLog } from '../report/losses.ts'
import type { WorkerMetrics } from '../report/metrics.ts'
import type { RunRecord, StepFigures } from '../report/record.ts'
import { isSummarised, writeResults, writeTrace } from '../report/results.ts'
import { chromeTrace, type TracedRun } from '../report/trace.ts'
import type { ScheduleHistory } from './history.ts'

export interface ReportingOptions {
  config: WorkerConfig
  record: RunRecord
  metrics: WorkerMetrics
  log: Logger
  /** Called after every step with a function that makes its trace. */
  traced: (trace: () => string) => void
}

/** Parts of the summary that are not in the record. */
interface Result {
  history: ScheduleHistory
  /** Backend and hardware. */
  engine: string
  /** The cost of a checkpoint, if any was written. */
  checkpoint: object | undefined
}

/** Figures of a step for losses.jsonl alone. */
interface More {
  gradientNorm: number
  learningRate: number
  auxLoss: () => number
}

export class Reporting {
  readonly #options: ReportingOptions
  #losses: LossLog | undefined
  /** Steps that an earlier run had done. */
  #resumedAt = 0
  #lastLog = 0
  #trace: (() => string) | undefined

  constructor(options: ReportingOptions) {
    this.#options = options
  }

  /** Continues after `step`. */
  begin(step: number): void {
    const { outputDirectory, rank } = this.#options.config
    this.#resumedAt = step
    if (outputDirectory === undefined || rank !== 0) return
    keepJob(outputDirectory, this.#options.config)
    this.#losses = new LossLog(outputDirectory, step)
  }

  /** Keeps the runs of a step that began at `started`, as given by performance.now(). */
  ran(started: number, runs: readonly TracedRun[]): void {
    const { config, traced } = this.#options
    const startMicroseconds = 1000 * (performance.timeOrigin + started)
    this.#trace = () => chromeTrace({ rank: config.rank, startMicroseconds, runs })
    traced(this.#trace)
  }

  /** Calls `auxLoss`, which may have to copy from a GPU, only if losses are written to a file. */
  stepDone(step: number, figures: StepFigures, more: More): void {
    const { record, metrics } = this.#options
    record.stepDone(step, figures)
    metrics.stepDone(figures)
    const { auxLoss, ...rest } = more
    this.#losses?.append({ step, loss: figures.loss, auxLoss: auxLoss(), ...rest })
  }

  evaluated(step: number, evaluationLoss: number): void {
    const { config, record, log } = this.#options
    record.evaluated(step, evaluationLoss)
    this.#losses?.append({ step, evaluationLoss })
    if (config.rank === 0) log.info({ step, evaluationLoss }, 'evaluation')
  }

  /** Logs the last step, and others at the interval of `spec.reporting`. */
  logStep(step: number): void {
    const { record, config, log } = this.#options
    if (config.rank !== 0) return
    const now = performance.now()
    const due = now - this.#lastLog >= config.spec.reporting.intervalSeconds * 1000
    if (!due && step !== config.spec.training.steps) return
    this.#lastLog = now
    const rates = record.rates()
    log.info(
      {
        step,
        ...record.losses.last,
        tokensPerSecond: Math.round(rates?.tokensPerSecond ?? 0),
        overlapPercent: rates?.overlapPercent && Math.round(rates.overlapPercent),
      },
      'step',
    )
  }

  /** Writes the trace of the last step and, on rank 0, the summary. */
  finish(step: number, result: Result): void {
    const { outputDirectory, rank } = this.#options.config
    if (outputDirectory !== undefined && this.#trace) writeTrace(outputDirectory, rank, this.#trace())
    if (rank === 0) this.#summarise(step, result)
  }

  #summarise(step: number, { history, engine, checkpoint }: Result): void {
    const { config, record, log } = this.#options
    // A run that had nothing to do leaves the summary of the run before as it is.
    if (step === this.#resumedAt && isSummarised(config.outputDirectory, step)) {
      log.info({ steps: step }, 'nothing left to do')
      return
    }
    const { first, last } = record.losses
    const { candidates, ...plans } = history.summary
    const summary = {
      steps: step,
      totalSteps: config.spec.training.steps,
      worldSize: config.worldSize,
      loss: { first: first.loss, last: last.loss },
      evaluationLoss: { first: first.evaluationLoss, last: last.evaluationLoss, step: last.evaluationStep },
      ...record.rates(),
      schedule: record.schedule,
      ...plans,
      engine,
      checkpointStep: record.checkpointStep,
      checkpoint,
    }
    log.info(summary, 'finished')
    if (config.outputDirectory === undefined) return
    writeResults(config.outputDirectory, { ...summary, candidates }, history.measured)
  }
}

// From a worker's progress record to the part of the status that the field owner OWNER_PROGRESS
// writes: progress, throughput and the last checkpoint.

import { PORT, type Progress } from '../../crds/contract.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import type { CheckpointStatus, ProgressStatus, ScMoEJobStatus, State, ThroughputStatus } from '../../crds/status.ts'
import { defined, same } from '../objects/json.ts'
import { terminationRecord } from '../objects/pod-state.ts'
import { type Job, podName } from '../objects/wire.ts'
import { timestamp } from './time.ts'
import { hasRun, readSpec, readStatus, sizeOf, type View } from './view.ts'

export type Report = { progress: ProgressStatus; throughput?: ThroughputStatus; lastCheckpoint?: CheckpointStatus }

/** How often rank 0 of a job is asked for its progress. Undefined if the job does not run. */
export function reportingInterval(job: Job): number | undefined {
  const reading = readSpec(job)
  const isAsked = hasRun({ status: readStatus(job) }) && job.metadata.deletionTimestamp === undefined
  return 'invalid' in reading || !isAsked ? undefined : reading.spec.reporting.intervalSeconds * 1000
}

/** Whether what happens to the job next may depend on its next report. */
export function isWaitedFor(job: Job): boolean {
  const { state, reason } = readStatus(job)
  return state !== 'Running' || reason === 'ProgressUnknown'
}

/** The port on which rank 0 of a job answers. */
export function reportingPort(job: Job): number {
  const reading = readSpec(job)
  return 'invalid' in reading ? PORT.http : reading.spec.network.httpPort
}

/** The report to write after rank 0 of a running job answered. Undefined if the status has it. */
export function reportFrom(job: Job, answer: Progress, now: number): Report | undefined {
  const reading = readSpec(job)
  if ('invalid' in reading) return undefined
  const status = readStatus(job)
  const replicas = sizeOf(reading.spec, { status, created: true })
  const ranks = worldSizeOf({ workers: { ...reading.spec.workers, replicas } })
  const report = reportOf(answer, { status, ranks, now })
  return same(report, reported(status)) ? undefined : report
}

/** The report that the status has. */
function reported({ progress, throughput, lastCheckpoint }: ScMoEJobStatus): Report | undefined {
  return progress === undefined ? undefined : defined({ progress, throughput, lastCheckpoint })
}

/**
 * A record may have no figures, as is common for the first and the last one. The status then keeps
 * the figures of the record before.
 */
export function reportOf(
  record: Progress,
  { status, ranks, now }: { status: ScMoEJobStatus; ranks: number; now: number },
): Report {
  const throughput = record.tokensPerSecond === undefined ? status.throughput : throughputOf(record, ranks)
  const lastCheckpoint = checkpointOf(record) ?? status.lastCheckpoint
  const done = Math.min(record.step, record.totalSteps)
  return {
    progress: defined({
      step: record.step,
      totalSteps: record.totalSteps,
      percent: record.totalSteps === 0 ? 0 : Math.floor((100 * done) / record.totalSteps),
      lossMilli: record.lossMilli,
      initialLossMilli: record.initialLossMilli ?? status.progress?.initialLossMilli,
      ...evaluationOf(record, status),
      initialEvaluationLossMilli: record.initialEvaluationLossMilli ?? status.progress?.initialEvaluationLossMilli,
      estimatedRemainingSeconds: record.estimatedRemainingSeconds,
      lastStepTime: record.step === status.progress?.step ? status.progress.lastStepTime : timestamp(now),
    }),
    ...(throughput === undefined ? {} : { throughput }),
    ...(lastCheckpoint === undefined ? {} : { lastCheckpoint }),
  }
}

/**
 * The last evaluation with its step. One that was measured after the present step is of a run whose
 * steps are done again, and says nothing about this one.
 */
function evaluationOf(record: Progress, { progress: before }: ScMoEJobStatus) {
  if (record.evaluationLossMilli !== undefined)
    return { evaluationLossMilli: record.evaluationLossMilli, evaluationStep: record.evaluationStep }
  const { evaluationLossMilli, evaluationStep } = before ?? {}
  return (evaluationStep ?? 0) > record.step ? {} : { evaluationLossMilli, evaluationStep }
}

/**
 * Rank 0's termination record, if it is newer than the status. With it the status ends exactly at
 * the last step.
 */
function lastReport(view: View): Report | undefined {
  const first = view.gang[0] ?? view.others.find(({ metadata }) => metadata.name === podName(view.name, 0))
  const record = terminationRecord(first)?.progress
  if (record === undefined || record.jobUid !== view.uid || record.rank !== 0) return undefined
  const known = view.status.throughput?.observedTime
  if (known !== undefined && Date.parse(record.observedTime) < Date.parse(known)) return undefined
  return reportOf(record, { status: view.status, ranks: worldSizeOf(view.spec), now: view.now })
}

/**
 * The report to write in this state, undefined if the status has it already. Only a running job
 * has a remaining time.
 */
export function reportIn(view: View, state: State): Report | undefined {
  const held = reported(view.status)
  const report = lastReport(view) ?? held
  if (report === undefined) return undefined
  const { estimatedRemainingSeconds = 0, ...rest } = report.progress
  const wanted = state === 'Running' || estimatedRemainingSeconds === 0 ? report : { ...report, progress: rest }
  return held !== undefined && same(wanted, held) ? undefined : wanted
}

function throughputOf(record: Progress, ranks: number): ThroughputStatus {
  const { tokensPerSecond, stepTimeMilliseconds, schedule, observedTime } = record
  const { communicationMilliseconds, overlapPercent, communicationShareOfMoePercent } = record
  return defined({
    tokensPerSecond,
    tokensPerSecondPerRank: tokensPerSecond === undefined ? undefined : Math.round(tokensPerSecond / ranks),
    stepTimeMilliseconds,
    communicationMilliseconds,
    overlapPercent,
    communicationShareOfMoePercent,
    schedule,
    observedTime,
  })
}

function checkpointOf({ lastCheckpointStep: step, lastCheckpointTime: time }: Progress): CheckpointStatus | undefined {
  return step === undefined ? undefined : defined({ step, time })
}

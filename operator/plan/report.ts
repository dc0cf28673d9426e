// From a worker's progress record to the part of the status that the field owner scmoe-progress holds. Pure.

import type { Progress } from '../../crds/contract.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import type { CheckpointStatus, ProgressStatus, ScMoEJobStatus, State, ThroughputStatus } from '../../crds/status.ts'
import { timestamp } from './decision.ts'
import { terminationRecord } from './gang.ts'
import type { View } from './view.ts'

export type Report = { progress: ProgressStatus; throughput?: ThroughputStatus; lastCheckpoint?: CheckpointStatus }

/** A record without figures (the first and the last often have none) keeps those observed before it. */
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
      evaluationLossMilli: record.evaluationLossMilli ?? status.progress?.evaluationLossMilli,
      initialEvaluationLossMilli: record.initialEvaluationLossMilli ?? status.progress?.initialEvaluationLossMilli,
      estimatedRemainingSeconds: record.estimatedRemainingSeconds,
      lastStepTime: record.step === status.progress?.step ? status.progress.lastStepTime : timestamp(now),
    }),
    ...(throughput === undefined ? {} : { throughput }),
    ...(lastCheckpoint === undefined ? {} : { lastCheckpoint }),
  }
}

/** Rank 0's last words, where they are newer than what the status holds: so the status ends exactly at the last step. */
function lastWords(view: View): Report | undefined {
  const first = view.gang[0] ?? view.others.find(({ metadata }) => metadata.name === `${view.name}-worker-0`)
  const record = terminationRecord(first)?.progress
  if (record === undefined || record.jobUid !== view.uid || record.rank !== 0) return undefined
  const known = view.status.throughput?.observedTime
  if (known !== undefined && Date.parse(record.observedTime) < Date.parse(known)) return undefined
  return reportOf(record, { status: view.status, ranks: worldSizeOf(view.spec), now: view.now })
}

/** What scmoe-progress has to write in this state; undefined where it already says so. Only a running job has a remaining time. */
export function reportIn(view: View, state: State): Report | undefined {
  const { progress, throughput, lastCheckpoint } = view.status
  const held = progress === undefined ? undefined : defined({ progress, throughput, lastCheckpoint })
  const report = lastWords(view) ?? held
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

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/** Without the fields that are undefined. */
export function defined<T extends object>(object: T): Defined<T>
export function defined(object: object): object {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined))
}

/** Deep equality of JSON, whatever the order of keys. */
export function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) || Array.isArray(b))
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((each, i) => same(each, b[i]))
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b
  const [left, right] = [Object.entries(a), new Map(Object.entries(b))]
  return left.length === right.size && left.every(([key, value]) => right.has(key) && same(value, right.get(key)))
}

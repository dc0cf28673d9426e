// From a decision to the part of the status that the field owner OWNER_CONTROLLER writes.

import type { Condition, ConditionType, ScMoEJobStatus } from '../../crds/status.ts'
import { defined, same } from '../objects/json.ts'
import { clip, type Job } from '../objects/wire.ts'
import { doubtOf } from './asked/doubts.ts'
import type { Decision } from './decision.ts'
import { countWorkers } from './gang.ts'
import { timestamp } from './time.ts'
import { isLive, readStatus, type View } from './view.ts'

export type Controlled = Omit<ScMoEJobStatus, 'progress' | 'throughput' | 'lastCheckpoint'>

/** The status to write, undefined if the job has that status already. */
export function nextStatus(view: View, decision: Decision): Controlled | undefined {
  if (decision.frozen) return undefined
  const { changes = {}, state } = decision
  const old = view.status
  const live = isLive(state)
  const attempt = changes.attempt ?? view.attempt
  const status: Controlled = defined({
    observedGeneration: view.job.metadata.generation,
    state,
    reason: decision.reason,
    message: clip(decision.message),
    conditions: conditions(view, decision),
    startTime: live ? (old.startTime ?? timestamp(view.now)) : kept(changes.startTime, old.startTime),
    completionTime: changes.completionTime ?? old.completionTime,
    restarts: changes.restarts ?? old.restarts ?? 0,
    restartsCountTowardsMax: changes.restartsCountTowardsMax ?? old.restartsCountTowardsMax ?? old.restarts ?? 0,
    consecutiveRestarts: changes.consecutiveRestarts ?? old.consecutiveRestarts ?? 0,
    attempt,
    nextRestartTime: live ? (changes.nextRestartTime ?? undefined) : kept(changes.nextRestartTime, old.nextRestartTime),
    nextResizeTime: kept(changes.nextResizeTime, old.nextResizeTime),
    workers: workers(view, decision, attempt),
    lastFailure: changes.lastFailure ?? old.lastFailure,
  })
  return same(status, controlled(old)) ? undefined : status
}

/**
 * The status of a job for which the API server refuses to create an object. A job without a state,
 * or a suspended one, becomes Pending. Undefined if the job has that status already.
 */
export function refusedStatus(
  job: Job,
  { reason, message }: { reason: string; message: string },
  now: number,
): Controlled | undefined {
  const old = controlled(readStatus(job))
  const { generation } = job.metadata
  const state = old.state === undefined || old.state === 'Suspended' ? 'Pending' : old.state
  const judged: Judgement[] = [{ type: 'Suspended', status: 'False', reason: state, message: '' }]
  if (state !== 'Running' && state !== 'Stalled')
    judged.push({ type: 'WorkersReady', status: 'False', reason, message })
  const status: Controlled = {
    ...old,
    ...defined({ observedGeneration: generation }),
    state,
    reason,
    message: clip(message),
    conditions: merge(old.conditions ?? [], judged, { now, generation }),
  }
  return same(status, old) ? undefined : status
}

/**
 * The status of a job whose spec this version of the operator cannot read. Nothing else about the
 * job changes. Undefined if the job has that status already.
 */
export function invalidStatus(job: Job, message: string, now: number): Controlled | undefined {
  const old = controlled(readStatus(job))
  const judged = { type: 'WorkersReady', status: 'Unknown', reason: 'InvalidSpec', message } as const
  const status: Controlled = {
    ...old,
    ...defined({ observedGeneration: job.metadata.generation }),
    state: old.state ?? 'Pending',
    reason: 'InvalidSpec',
    message: clip(message),
    conditions: merge(old.conditions ?? [], [judged], { now, generation: job.metadata.generation }),
  }
  return same(status, old) ? undefined : status
}

/** null removes the value, undefined keeps the one before. */
const kept = (changed: string | null | undefined, before: string | undefined) =>
  changed === undefined ? before : (changed ?? undefined)

/** The status without the fields that OWNER_PROGRESS writes. */
function controlled({ progress: _p, throughput: _t, lastCheckpoint: _c, ...rest }: ScMoEJobStatus): Controlled {
  return rest
}

function workers(view: View, { state, changes }: Decision, attempt: number) {
  const stopped = state === 'Suspended'
  // This status is written after the missing pods were created.
  const justCreated = state === 'Starting' && !view.created ? view.gang.filter(pod => pod === undefined).length : 0
  // The next attempt has no pods yet.
  const counts = countWorkers(
    attempt === view.attempt && !stopped ? view : { ...view, gang: [] },
    stopped ? 0 : (changes?.size ?? view.gang.length),
  )
  // The pods of a finished job that still run are about to be deleted.
  if (state === 'Complete' || state === 'Failed') return { ...counts, ready: 0, active: 0 }
  return { ...counts, active: counts.active + justCreated }
}

type Judgement = Pick<Condition, 'status' | 'reason' | 'message'> & { type: ConditionType }

function conditions(view: View, { state, reason, message, progressing }: Decision): Condition[] {
  const judge = (type: ConditionType, holds: boolean): Judgement =>
    holds ? { type, status: 'True', reason, message } : { type, status: 'False', reason: state, message: '' }
  const { ready, succeeded } = countWorkers(view, 0)
  const runs = state === 'Running' || state === 'Stalled'
  const allReady = runs && ready + succeeded === view.gang.length
  const judged: Judgement[] = [
    judge('Suspended', state === 'Suspended'),
    // WorkersReady is where users look for the reason why a job does not start.
    state === 'Starting' || state === 'Queued'
      ? { type: 'WorkersReady', status: 'False', reason, message }
      : judge('WorkersReady', allReady),
    judge('Running', runs),
    progressing === undefined
      ? judge('Progressing', state === 'Running')
      : { type: 'Progressing', status: progressing, reason, message },
    judge('Restarting', state === 'Restarting'),
    ...(state === 'Complete' || state === 'Failed' ? [judge(state, true)] : []),
    ...doubtOf(view.job, view.status),
  ]
  return merge(view.status.conditions ?? [], judged, { now: view.now, generation: view.job.metadata.generation })
}

/** Updates the old conditions. The time of a condition is when its status last changed. */
function merge(
  old: readonly Condition[],
  judged: readonly Judgement[],
  { now, generation }: { now: number; generation: number | undefined },
): Condition[] {
  const others = old.filter(({ type }) => !judged.some(each => each.type === type))
  const changed = judged.map(each => {
    const before = old.find(({ type }) => type === each.type)
    const lastTransitionTime = before?.status === each.status ? before.lastTransitionTime : timestamp(now)
    const message = clip(each.message)
    return { ...each, message, lastTransitionTime, ...defined({ observedGeneration: generation }) }
  })
  return [...changed, ...others]
}

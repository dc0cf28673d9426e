// What follows from a failure: the rules of spec.failurePolicy, the back-off, and what goes on record. Pure.

import type { FailureStatus } from '../../crds/status.ts'
import { clip } from '../objects/wire.ts'
import { overdue } from './deadlines.ts'
import { asBefore, type Changes, exactTime, instant, type Policy, timestamp } from './decision.ts'
import { type Blow, firstBlow, isDisruption, outcomeOf } from './gang.ts'
import type { View } from './view.ts'

/** How long a worker that blames another is not believed to be the first: its killer's end may be reported after it. */
const HEARSAY_MILLISECONDS = 5000

type Rule = NonNullable<View['spec']['failurePolicy']['rules']>[number]
type Verdict = {
  action: Rule['action']
  /** Position of the rule of spec.failurePolicy.rules that said so. */
  rule?: number
}

/**
 * The first failure ends the attempt. It goes on record before the pods, which are the evidence, are deleted: that
 * follows when this status is observed, as they then are pods of an earlier attempt.
 */
export const failed: Policy = view => {
  const blow = firstBlow(view) ?? overdue(view)
  if (blow === undefined) return undefined
  const age = view.now - blow.at
  const over = view.gang.every(pod => outcomeOf(pod) !== 'active')
  if (blow.distance === 2 && !over && age > -HEARSAY_MILLISECONDS && age < HEARSAY_MILLISECONDS)
    return { ...asBefore(view, 'Starting'), requeueAt: blow.at + HEARSAY_MILLISECONDS }
  const { action, rule } = verdict(blow, view.spec.failurePolicy.rules)
  const { maxRestarts } = view.spec.failurePolicy
  const counted = view.status.restartsCountTowardsMax ?? view.status.restarts ?? 0
  const what = sentence(blow, view.attempt)
  const by = rule === undefined ? '' : ` by failurePolicy.rules[${rule}]`
  if (action === 'FailJob')
    return rule === undefined
      ? end(view, blow, { reason: 'PermanentFailure', message: `${what}; a restart would not help` })
      : end(view, blow, { reason: 'FailJobRule', message: `${what}; the job fails${by}` })
  if (action === 'RestartJob' && counted >= maxRestarts)
    return end(view, blow, {
      reason: 'MaxRestartsExceeded',
      message: `${what}; failurePolicy.maxRestarts is ${maxRestarts}`,
    })
  const count = action === 'RestartJob' ? counted + 1 : counted
  const message =
    action === 'RestartJob'
      ? `${what}; restart ${count} of ${maxRestarts}${by}`
      : `${what}; a restart that does not count${by}`
  return restart(view, blow, { message, count })
}

const end = (view: View, blow: Blow, said: { reason: string; message: string }) => ({
  state: 'Failed' as const,
  ...said,
  changes: {
    completionTime: timestamp(view.now),
    lastFailure: recordOf(blow, view.attempt),
    nextRestartTime: null,
  },
})

function restart(view: View, blow: Blow, { message, count }: { message: string; count: number }) {
  const consecutive = consecutiveRestarts(view) + 1
  const { initialSeconds, maxSeconds } = view.spec.failurePolicy.backoff
  const delay = Math.min(initialSeconds * 2 ** (consecutive - 1), maxSeconds) * 1000
  const next = view.now + delay
  const changes: Changes = {
    attempt: view.attempt + 1,
    restarts: (view.status.restarts ?? 0) + 1,
    restartsCountTowardsMax: count,
    consecutiveRestarts: consecutive,
    nextRestartTime: exactTime(next),
    lastFailure: recordOf(blow, view.attempt),
  }
  const reason = blow.deleted ? 'PodDeleted' : blow.deadline ? blow.reason : 'WorkerFailed'
  return { state: 'Restarting' as const, reason, message, changes, requeueAt: next }
}

/** Restarts since the gang last ran for long enough: what ran for an hour is not a storm. */
function consecutiveRestarts({ status, spec, now }: View): number {
  const running = status.conditions?.find(each => each.type === 'Running' && each.status === 'True')
  const ranFor = now - (instant(running?.lastTransitionTime) ?? now)
  return ranFor >= spec.failurePolicy.backoff.resetAfterSeconds * 1000 ? 0 : (status.consecutiveRestarts ?? 0)
}

/** The first rule that fits the pod that failed first; without one a failure counts, unless the pod was taken away. */
function verdict(blow: Blow, rules: readonly Rule[] = []): Verdict {
  const rule = rules.findIndex(each => fits(each, blow))
  const found = rules[rule]
  if (found !== undefined) return { action: found.action, rule }
  if (blow.permanent) return { action: 'FailJob' }
  const disrupted = blow.conditions?.some(isDisruption)
  return { action: disrupted === true ? 'RestartJobIgnoreMaxRestarts' : 'RestartJob' }
}

/** The exit code of a pod that was told to stop follows from that, and no rule is asked about it. */
function fits({ onExitCodes, onPodConditions }: Rule, { exitCode, deleted, conditions = [] }: Blow): boolean {
  if (onExitCodes !== undefined) {
    if (exitCode === undefined || deleted) return false
    return onExitCodes.values.includes(exitCode) === (onExitCodes.operator === 'In')
  }
  return (onPodConditions ?? []).some(wanted =>
    conditions.some(({ type, status }) => type === wanted.type && status === wanted.status),
  )
}

function recordOf({ podName: name, nodeName, exitCode, reason, message }: Blow, attempt: number): FailureStatus {
  return {
    attempt,
    podName: name,
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(exitCode === undefined || exitCode < 0 || exitCode > 255 ? {} : { exitCode }),
    reason,
    message: clip(message),
  }
}

function sentence({ podName: name, exitCode, reason, message, deleted }: Blow, attempt: number): string {
  const code = exitCode === undefined ? '' : `exit code ${exitCode}, `
  return `${name} ${deleted ? 'was deleted' : 'failed'} in attempt ${attempt}: ${code}${reason}: ${clip(message, 512).replace(/\.$/, '')}`
}

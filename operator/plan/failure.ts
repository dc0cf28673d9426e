// Decides what follows from a failure: the rules of spec.failurePolicy, the back-off, and the
// record of the failure in the status.

import { CONTAINER } from '../../crds/contract.ts'
import type { FailureStatus } from '../../crds/status.ts'
import { containerOf } from '../objects/pod-end.ts'
import { outcomeOf } from '../objects/pod-state.ts'
import { clip } from '../objects/wire.ts'
import { unfinished } from './asked/completion.ts'
import { overdue } from './deadlines.ts'
import { asBefore, type Changes, type Decision, type Policy } from './decision.ts'
import { firstFailure, type PodFailure } from './gang.ts'
import { exactTime, instant, timestamp } from './time.ts'
import type { View } from './view.ts'

/**
 * How long a failure that is attributed to a peer waits for the failure of that peer, which another
 * node may report later.
 */
const PEER_REPORT_MILLISECONDS = 5000

type Rule = NonNullable<View['spec']['failurePolicy']['rules']>[number]
type Verdict = {
  action: Rule['action']
  /** Index in spec.failurePolicy.rules, if a rule decided. */
  rule?: number
}

/** The first failure ends the attempt. How an attempt ends is told in view.ts. */
export const failed: Policy = view => {
  const failure = firstFailure(view) ?? unfinished(view)
  if (failure !== undefined) return follow(view, failure)
  const missed = overdue(view)
  return missed === undefined ? undefined : { ...follow(view, missed), deadline: missed.reason }
}

function follow(view: View, failure: PodFailure): Decision {
  if (mayBeExplained(view, failure))
    return { ...asBefore(view, 'Starting'), requeueAt: failure.at + PEER_REPORT_MILLISECONDS }
  const { action, rule } = verdict(failure, view.spec.failurePolicy.rules)
  const { maxRestarts } = view.spec.failurePolicy
  const counted = view.status.restartsCountTowardsMax ?? view.status.restarts ?? 0
  const text = sentence(failure, view.attempt)
  const by = rule === undefined ? '' : ` by failurePolicy.rules[${rule}]`
  if (action === 'FailJob')
    return rule === undefined
      ? end(view, failure, { reason: 'PermanentFailure', message: `${text}; a restart would not help` })
      : end(view, failure, { reason: 'FailJobRule', message: `${text}; the job fails${by}` })
  if (action === 'RestartJobIgnoreMaxRestarts')
    return restart(view, failure, { message: `${text}; a restart that does not count${by}`, count: counted })
  if (counted >= maxRestarts)
    return end(view, failure, {
      reason: 'MaxRestartsExceeded',
      message: `${text}; failurePolicy.maxRestarts is ${maxRestarts}`,
    })
  const count = counted + 1
  return restart(view, failure, { message: `${text}; restart ${count} of ${maxRestarts}${by}`, count })
}

/** Whether the failure of a peer, which explains this failure, may still be reported. */
function mayBeExplained(view: View, { attributedTo, at }: PodFailure): boolean {
  const age = Math.abs(view.now - at)
  const isActive = view.gang.some(pod => outcomeOf(pod) === 'active')
  return attributedTo === 'peer' && isActive && age < PEER_REPORT_MILLISECONDS
}

const end = (view: View, failure: PodFailure, said: { reason: string; message: string }): Decision => ({
  state: 'Failed',
  ...said,
  changes: {
    completionTime: timestamp(view.now),
    lastFailure: recordOf(failure, view.attempt),
    nextRestartTime: null,
  },
})

function restart(view: View, failure: PodFailure, { message, count }: { message: string; count: number }): Decision {
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
    lastFailure: recordOf(failure, view.attempt),
  }
  return { state: 'Restarting', reason: reasonOf(failure), message, changes, requeueAt: next }
}

/** Restarts since the gang last ran for `backoff.resetAfterSeconds`. */
function consecutiveRestarts({ status, spec, now }: View): number {
  const running = status.conditions?.find(each => each.type === 'Running' && each.status === 'True')
  const ranFor = now - (instant(running?.lastTransitionTime) ?? now)
  return ranFor >= spec.failurePolicy.backoff.resetAfterSeconds * 1000 ? 0 : (status.consecutiveRestarts ?? 0)
}

/** The status's reason for a restart. */
function reasonOf({ act, deadline, container, reason }: PodFailure): string {
  if (deadline) return reason
  if (act === 'others') return 'PodDeleted'
  if (act === 'node') return 'PodDisrupted'
  return container === undefined ? 'WorkerFailed' : 'InitContainerFailed'
}

/**
 * The action of the first rule that matches the pod that failed first. Without such a rule a
 * failure counts towards maxRestarts, unless the pod was taken away.
 */
function verdict(failure: PodFailure, rules: readonly Rule[] = []): Verdict {
  const rule = rules.findIndex(each => matches(each, failure))
  const found = rules[rule]
  if (found !== undefined) return { action: found.action, rule }
  if (failure.permanent) return { action: 'FailJob' }
  return { action: failure.counts ? 'RestartJob' : 'RestartJobIgnoreMaxRestarts' }
}

/**
 * Rules on exit codes do not apply to a pod that was told to stop, because its exit code follows
 * from that. Whatever takes a pod away counts as DisruptionTarget, also if nobody could write the
 * condition. A node that refuses a pod does not write it.
 */
function matches({ onExitCodes, onPodConditions }: Rule, failure: PodFailure): boolean {
  const { exitCode, byItself, counts, conditions = [] } = failure
  if (onExitCodes !== undefined) {
    const { operator, values, containerName = CONTAINER } = onExitCodes
    if (exitCode === undefined || !byItself || containerOf(failure) !== containerName) return false
    return values.includes(exitCode) === (operator === 'In')
  }
  const implied = counts ? [] : [{ type: 'DisruptionTarget', status: 'True' }]
  return (onPodConditions ?? []).some(wanted =>
    [...conditions, ...implied].some(({ type, status }) => type === wanted.type && status === wanted.status),
  )
}

function recordOf(
  { podName: name, nodeName, container, exitCode, reason, message }: PodFailure,
  attempt: number,
): FailureStatus {
  return {
    attempt,
    podName: name,
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(container === undefined ? {} : { container }),
    ...(exitCode === undefined || exitCode < 0 || exitCode > 255 ? {} : { exitCode }),
    reason,
    message: clip(message),
  }
}

function sentence({ podName: name, exitCode, reason, message, verb }: PodFailure, attempt: number): string {
  const code = exitCode === undefined ? '' : `exit code ${exitCode}, `
  return `${name} ${verb} in attempt ${attempt}: ${code}${reason}: ${clip(message, 512).replace(/\.$/, '')}`
}

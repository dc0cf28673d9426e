// Decides what to do about a job: an ordered list of small checks. The first check that has an
// answer decides. The user reads its reason and message in the status.

import { KIND } from '../../crds/contract.ts'
import { privileges } from '../../crds/privileges.ts'
import type { State } from '../../crds/status.ts'
import { isOwnedBy } from '../objects/owned.ts'
import { isOver, isStopping } from '../objects/pod-state.ts'
import { secret } from '../objects/secret.ts'
import type { Pod } from '../objects/wire.ts'
import { pod as podOf } from '../objects/workers.ts'
import { raised, succeeded } from './asked/completion.ts'
import { finished, podsOf, stuckPods } from './cleanup.ts'
import { expired, stalled } from './deadlines.ts'
import { type Action, asBefore, type Changes, type Decision, deletions, type Policy } from './decision.ts'
import { grown, growth, scaledDown } from './elastic.ts'
import { failed } from './failure.ts'
import { countWorkers } from './gang.ts'
import { partlyAdmitted, queued } from './queueing.ts'
import { instant } from './time.ts'
import { HELD_UP, worstTrouble } from './trouble.ts'
import { hasRun, type View } from './view.ts'

/** The workers write a checkpoint when they are told to stop. A resumed job has another attempt. */
const suspended: Policy = view => {
  if (!view.spec.suspend) return undefined
  const wasStarted = view.status.state !== 'Suspended' && (view.created || view.gang.some(pod => pod !== undefined))
  const left = podsOf(view)
  const reset = { startTime: null, nextRestartTime: null, nextResizeTime: null, consecutiveRestarts: 0 } as const
  const changes: Changes = wasStarted ? { ...reset, attempt: view.attempt + 1 } : reset
  const [reason, message] =
    left.length > 0
      ? ['Stopping', 'waiting for the workers to stop']
      : ['Suspended', 'spec.suspend is true: no pods until it is false']
  return { state: 'Suspended', reason, message, changes, actions: deletions(left, 'the job is suspended') }
}

const nameOf = ({ metadata, spec }: Pod): string =>
  `pod ${metadata.name}${spec?.nodeName === undefined ? '' : ` on node ${spec.nodeName}`}`

/** Pods that are gone within this time after the back-off do not cost a status write. */
const UNREPORTED_MILLISECONDS = 5000

/**
 * Waits until the names of the pods are free. Pods have the same names in every attempt, so the
 * old ones have to be gone before the first new one can be created.
 */
const stopping: Policy = view => {
  const [first] = view.created ? [] : [...view.others, ...view.gang.filter(pod => pod !== undefined && isStopping(pod))]
  if (first === undefined) return undefined
  const actions = deletions(
    view.others.filter(pod => isOwnedBy(pod, view.uid)),
    'it belongs to an earlier attempt',
  )
  const foreign = view.others.find(pod => isNobodys(pod) && !isOwnedBy(pod, view.uid))
  if (foreign !== undefined) return { ...nameTaken(view, foreign), actions }
  const [stuck] = stuckPods(view)
  const next = restartTime(view)
  if (next !== undefined && view.now < next + UNREPORTED_MILLISECONDS && stuck === undefined) {
    const requeueAt = view.now < next ? next : next + UNREPORTED_MILLISECONDS
    return { ...asBefore(view, 'Restarting'), actions, requeueAt }
  }
  const state = stateOfWaiting(view)
  if (stuck !== undefined)
    return {
      state,
      reason: 'PodForceDeleted',
      message: `${nameOf(stuck)} did not end within podTerminationTimeoutSeconds, ${view.spec.podTerminationTimeoutSeconds} s, after its grace period: deleted by force`,
      actions,
    }
  return {
    state,
    reason: 'WaitingForPods',
    message: `waiting for ${nameOf(first)} to be gone${heldBy(first)}`,
    actions,
  }
}

const stateOfWaiting = ({ status }: View): State => (status.state === 'Restarting' ? 'Restarting' : 'Pending')

/** Kubernetes deletes a pod that ended only when the controllers have removed their finalizers. */
function heldBy({ metadata: { finalizers = [] }, ...pod }: Pod): string {
  const hasEnded = isOver({ metadata: { name: '' }, ...pod })
  return hasEnded && finalizers.length > 0 ? `; it has ended, and its finalizers keep it: ${finalizers.join(', ')}` : ''
}

/** Whether no controller will ever delete the pod, as after `kubectl delete --cascade=orphan`. */
const isNobodys = ({ metadata }: Pod): boolean =>
  metadata.deletionTimestamp === undefined && !metadata.ownerReferences?.some(({ kind }) => kind === KIND)

const nameTaken = (view: View, { metadata: { name } }: Pod): Decision => ({
  state: stateOfWaiting(view),
  reason: 'NameTaken',
  message: `Pod ${name} exists and is not this job's: delete it, or create the job under another name`,
})

/** A time that is further away than any pause comes from a clock that was wrong, and is ignored. */
function restartTime({ status, spec, now }: View): number | undefined {
  const next = instant(status.nextRestartTime)
  const { backoff } = spec.failurePolicy
  const longest = Math.max(backoff.maxSeconds, backoff.initialSeconds + spec.scheduling.timeoutSeconds) * 1000
  return next !== undefined && next - now > longest + CLOCKS_DIFFER_MILLISECONDS ? undefined : next
}
const CLOCKS_DIFFER_MILLISECONDS = 10_000

const backingOff: Policy = view => {
  const next = restartTime(view)
  return next !== undefined && view.now < next ? { ...asBefore(view, 'Restarting'), requeueAt: next } : undefined
}

/** Only before pods are created: a gang that runs is left alone. */
const restricted: Policy = view => {
  if (view.restrictTemplates !== true || view.created) return undefined
  const found = privileges(view.spec)
  if (found.length === 0) return undefined
  return {
    state: view.status.state === 'Restarting' ? 'Restarting' : 'Pending',
    reason: 'TemplateRefused',
    message: `this operator creates no pods with ${found.join(', ')}`,
    actions: deletions(podsOf(view), 'the operator refuses its template'),
  }
}

const starting: Policy = view => {
  if (view.created) return undefined
  const missing = view.gang.flatMap((pod, worker) => (pod === undefined ? [worker] : []))
  if (missing.length === 0) return undefined
  const objects = [secret(view), ...missing.map(worker => podOf(view, worker))]
  const actions = objects.map((object): Action => ({ kind: 'create', object }))
  return { ...awaitingReadiness(view), actions }
}

/**
 * Written as soon as the pods are created. The text stays the same until there is news, so a start
 * costs one status write.
 */
const awaitingReadiness = ({ attempt }: View): Decision => ({
  state: 'Starting',
  reason: 'WorkersStarting',
  message: `created the workers of attempt ${attempt}, waiting for all to be ready`,
})

/** A worker cannot start for a reason that has a name. */
const heldUp: Policy = view => {
  const trouble = worstTrouble(view.gang, view.podWords)
  if (hasRun(view) || trouble === undefined || !HELD_UP.has(trouble.reason)) return undefined
  return { state: 'Starting', reason: trouble.reason, message: trouble.message }
}

const readiness = ({ gang, wanted }: View): string =>
  gang.length < wanted ? `all ${gang.length} workers are ready; ${wanted} were asked for` : 'all workers are ready'

/**
 * A job is Running from the time when all workers were ready together until the attempt ends,
 * whatever the readiness probes say in between.
 */
const running: Policy = view => {
  const { ready, succeeded: done } = countWorkers(view, view.gang.length)
  if (ready + done === view.gang.length)
    return { state: 'Running', reason: 'AllWorkersReady', message: readiness(view), ...growth(view) }
  if (hasRun(view)) return { state: 'Running', reason: 'WorkersNotReady', message: 'not all workers are ready' }
  return awaitingReadiness(view)
}

export const policies: readonly Policy[] = [
  finished,
  succeeded,
  suspended,
  expired,
  partlyAdmitted,
  failed,
  raised,
  stopping,
  backingOff,
  restricted,
  starting,
  scaledDown,
  queued,
  heldUp,
  stalled,
  grown,
  running,
]

// Decides what to do about a job: an ordered list of small checks. The first check that has an
// answer decides. The user reads its reason and message in the status.

import { isOwnedBy } from '../objects/owned.ts'
import { isStopping } from '../objects/pod-state.ts'
import type { Pod } from '../objects/wire.ts'
import { pod as podOf } from '../objects/workers.ts'
import { raised, succeeded } from './asked/completion.ts'
import { finished, podsOf, stuckPods } from './cleanup.ts'
import { expired, stalled } from './deadlines.ts'
import { type Action, asBefore, type Changes, type Decision, deletions, type Policy } from './decision.ts'
import { grown, growth, scaledDown } from './elastic.ts'
import { failed } from './failure.ts'
import { countWorkers } from './gang.ts'
import { queued } from './queueing.ts'
import { instant } from './time.ts'
import { worstTrouble } from './trouble.ts'
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
  const [stuck] = stuckPods(view)
  const next = instant(view.status.nextRestartTime)
  if (next !== undefined && view.now < next + UNREPORTED_MILLISECONDS && stuck === undefined) {
    const requeueAt = view.now < next ? next : next + UNREPORTED_MILLISECONDS
    return { ...asBefore(view, 'Restarting'), actions, requeueAt }
  }
  const state = view.status.state === 'Restarting' ? 'Restarting' : 'Pending'
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
    message: `waiting for ${nameOf(first)} to be gone`,
    actions,
  }
}

const backingOff: Policy = view => {
  const next = instant(view.status.nextRestartTime)
  return next !== undefined && view.now < next ? { ...asBefore(view, 'Restarting'), requeueAt: next } : undefined
}

const starting: Policy = view => {
  if (view.created) return undefined
  const missing = view.gang.flatMap((pod, worker) => (pod === undefined ? [worker] : []))
  if (missing.length === 0) return undefined
  const actions: Action[] = missing.map(worker => ({ kind: 'create', object: podOf(view, worker) }))
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
  const trouble = worstTrouble(view.gang)
  if (trouble?.reason !== 'ImagePull' && trouble?.reason !== 'ContainerConfig') return undefined
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
  failed,
  raised,
  stopping,
  backingOff,
  starting,
  scaledDown,
  queued,
  heldUp,
  stalled,
  grown,
  running,
]

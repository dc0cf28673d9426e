// What to do about a job: an ordered list of small checks. The first that has an answer decides; its reason and message
// are what the user reads. Pure.

import type { Pod } from '../objects/wire.ts'
import { pod as podOf } from '../objects/workers.ts'
import { finished, ours, overstayed } from './cleanup.ts'
import { expired, queued, stalled } from './deadlines.ts'
import { type Action, asBefore, type Changes, type Decision, deletions, type Policy, timestamp } from './decision.ts'
import { grown, growth, scaledDown } from './elastic.ts'
import { failed } from './failure.ts'
import { hasSucceeded, isStopping } from './gang.ts'
import { worstTrouble } from './trouble.ts'
import { countWorkers, isOwnedBy, type View } from './view.ts'

const succeeded: Policy = view => {
  if (!view.gang.every((_, rank) => hasSucceeded(rank, view))) return undefined
  const message = `all ${view.gang.length} workers did ${view.spec.training.steps} steps`
  return {
    state: 'Complete',
    reason: 'AllWorkersSucceeded',
    message,
    changes: { completionTime: timestamp(view.now), nextRestartTime: null },
  }
}

/** The workers checkpoint when they are told to stop; the next attempt gets a number of its own. */
const suspended: Policy = view => {
  if (!view.spec.suspend) return undefined
  const started = view.status.state !== 'Suspended' && (view.created || view.gang.some(pod => pod !== undefined))
  const left = ours(view)
  const fresh = { startTime: null, nextRestartTime: null, nextResizeTime: null, consecutiveRestarts: 0 } as const
  const changes: Changes = started ? { ...fresh, attempt: view.attempt + 1 } : fresh
  const [reason, message] =
    left.length > 0
      ? ['Stopping', 'waiting for the workers to stop']
      : ['Suspended', 'spec.suspend is true: no pods until it is false']
  return { state: 'Suspended', reason, message, changes, actions: deletions(left, 'the job is suspended') }
}

const nameOf = ({ metadata, spec }: Pod): string =>
  `pod ${metadata.name}${spec?.nodeName === undefined ? '' : ` on node ${spec.nodeName}`}`

/** Pods that are gone so soon after the back-off are not worth a status of their own. */
const UNTOLD_MILLISECONDS = 5000

/** Pods have the same names in every attempt, so the old ones have to be gone before the first new one is made. */
const stopping: Policy = view => {
  const [first] = view.created ? [] : [...view.others, ...view.gang.filter(pod => pod !== undefined && isStopping(pod))]
  if (first === undefined) return undefined
  const actions = deletions(
    view.others.filter(pod => isOwnedBy(pod, view.uid)),
    'it belongs to an earlier attempt',
  )
  const next = Date.parse(view.status.nextRestartTime ?? '')
  const told = next + UNTOLD_MILLISECONDS
  if (view.now < told && overstayed(view).length === 0)
    return { ...asBefore(view, 'Restarting'), actions, requeueAt: view.now < next ? next : told }
  const state = view.status.state === 'Restarting' ? 'Restarting' : 'Pending'
  const [lost] = overstayed(view)
  if (lost !== undefined)
    return {
      state,
      reason: 'PodForceDeleted',
      message: `${nameOf(lost)} did not end within podTerminationTimeoutSeconds, ${view.spec.podTerminationTimeoutSeconds} s, after its grace period: deleted by force`,
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
  const next = Date.parse(view.status.nextRestartTime ?? '')
  return view.now < next ? { ...asBefore(view, 'Restarting'), requeueAt: next } : undefined
}

const starting: Policy = view => {
  if (view.created) return undefined
  const missing = view.gang.flatMap((pod, rank) => (pod === undefined ? [rank] : []))
  if (missing.length === 0) return undefined
  const actions: Action[] = missing.map(rank => ({ kind: 'create', object: podOf(view, rank) }))
  return { ...awaited(view), actions }
}

/** As soon as they are made: the same words until something else is to be said, so one status. */
const awaited = ({ attempt }: View): Decision => ({
  state: 'Starting',
  reason: 'WorkersStarting',
  message: `created the workers of attempt ${attempt}, waiting for all to be ready`,
})

/** Not all are ready yet, for a reason that has a name. */
const held: Policy = view => {
  const trouble = worstTrouble(view.gang)
  if (trouble?.reason !== 'ImagePull' && trouble?.reason !== 'ContainerConfig') return undefined
  return { state: 'Starting', reason: trouble.reason, message: trouble.message }
}

const readiness = ({ gang, wanted }: View): string =>
  gang.length < wanted ? `all ${gang.length} workers are ready; ${wanted} were asked for` : 'all workers are ready'

/** Running once all were ready together; from then on until the attempt ends, whatever a readiness probe says. */
const running: Policy = view => {
  const { ready, succeeded: done } = countWorkers(view, view.gang.length)
  if (ready + done === view.gang.length)
    return { state: 'Running', reason: 'AllWorkersReady', message: readiness(view), ...growth(view) }
  if (view.status.state === 'Running' || view.status.state === 'Stalled')
    return { state: 'Running', reason: 'WorkersNotReady', message: 'not all workers are ready' }
  return awaited(view)
}

export const policies: readonly Policy[] = [
  finished,
  succeeded,
  suspended,
  expired,
  failed,
  stopping,
  backingOff,
  starting,
  scaledDown,
  queued,
  held,
  stalled,
  grown,
  running,
]

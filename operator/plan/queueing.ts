// Decides about a gang of which not every worker has a node.

import { isScheduled } from '../objects/pod-state.ts'
import { waitOf } from '../objects/providers.ts'
import { queueEnd } from './deadlines.ts'
import { type Decision, deletions, type Policy } from './decision.ts'
import { resizePause, smallerSize } from './elastic.ts'
import { exactTime } from './time.ts'
import { worstTrouble } from './trouble.ts'
import { hasRun, type View } from './view.ts'

/**
 * Some workers have no node. The reason is the provider's for the gang, otherwise the scheduler's
 * for a pod. After a time-out an elastic gang starts smaller, and any other gang gives its nodes
 * back: two gangs that hold nodes and wait for each other's would wait for ever.
 */
export const queued: Policy = view => {
  const trouble = worstTrouble(view.gang)
  if (hasRun(view) || (trouble?.reason !== 'Unschedulable' && trouble?.reason !== 'SchedulingGated')) return undefined
  const { reason, message } = waitOf(view, view.groups ?? []) ?? trouble
  const waits: Decision = { state: 'Queued', reason, message }
  const end = queueEnd(view)
  if (end === undefined || view.now < end) return waits
  const held = view.gang.filter(isScheduled).length
  const size = smallerSize(view, held)
  if (size !== undefined) return startSmaller(view, { held, size, message })
  return held === 0 ? waits : giveBack(view, { held, message })
}

function startSmaller(view: View, { held, size, message }: { held: number; size: number; message: string }): Decision {
  const { timeoutSeconds } = view.spec.scheduling
  return {
    state: 'Queued',
    reason: 'ScaledDown',
    message: `${held} of ${view.gang.length} workers had nodes after ${timeoutSeconds} s: the gang starts with ${size}; ${message}`,
    changes: {
      attempt: view.attempt + 1,
      size,
      nextRestartTime: exactTime(view.now),
      nextResizeTime: resizePause(view),
    },
    requeueAt: view.now,
  }
}

function giveBack(view: View, { held, message }: { held: number; message: string }): Decision {
  const { scheduling, failurePolicy } = view.spec
  const next = Math.ceil(view.now + failurePolicy.backoff.initialSeconds * 1000 + spread(view))
  return {
    state: 'Queued',
    reason: 'SchedulingTimeout',
    message: `${held} of ${view.gang.length} workers had nodes for ${scheduling.timeoutSeconds} s and gave them back; ${message}`,
    changes: { attempt: view.attempt + 1, nextRestartTime: exactTime(next) },
    actions: deletions(view.gang, 'the gang is queued again'),
    requeueAt: next,
  }
}

/**
 * Milliseconds, up to half of the time-out, that differ from job to job and attempt to attempt.
 * Gangs that gave their nodes back together do not ask for them together again.
 */
function spread({ uid, attempt, spec }: View): number {
  let hash = attempt
  for (const letter of uid) hash = (Math.imul(hash, 31) + (letter.codePointAt(0) ?? 0)) >>> 0
  return spec.scheduling.timeoutSeconds * 1000 * ((hash % 1000) / 2000)
}

// Decides about a gang of which not every worker has a node, or not every worker may exist.

import { EXIT } from '../../crds/contract.ts'
import { isScheduled, outcomeOf, workerEnd } from '../objects/pod-state.ts'
import { waitOf } from '../objects/providers.ts'
import type { Pod } from '../objects/wire.ts'
import { admissionEnd, queueEnd } from './deadlines.ts'
import { type Decision, deletions, type Policy } from './decision.ts'
import { resizePause, smallerSize } from './elastic.ts'
import { exactTime, isPast } from './time.ts'
import { worstTrouble } from './trouble.ts'
import { hasRun, type View } from './view.ts'

/**
 * Some workers have no node. The reason is the provider's for the gang, otherwise the scheduler's
 * for a pod. After a time-out an elastic gang starts smaller, and any other gang gives its nodes
 * back: two gangs that hold nodes and wait for each other's would wait for ever.
 */
export const queued: Policy = view => {
  const trouble = worstTrouble(view.gang, view.podWords)
  if (hasRun(view) || (trouble?.reason !== 'Unschedulable' && trouble?.reason !== 'SchedulingGated')) return undefined
  const { reason, message } = waitOf(view, view.groups ?? []) ?? trouble
  const waits: Decision = { state: 'Queued', reason, message }
  const end = queueEnd(view)
  if (end === undefined || view.now < end) return waits
  const held = view.gang.filter(isScheduled).length
  const size = smallerSize(view, held)
  const text = { reason: 'SchedulingTimeout', held, what: 'had nodes', message }
  if (size !== undefined) return startSmaller(view, { ...text, size })
  return held === 0 ? waits : giveBack(view, text)
}

/**
 * The API server admits some workers and refuses the others, as a quota does. The admitted ones
 * hold their part of the quota as long as workers may hold nodes while others find none. Meanwhile
 * it is no failure that they give up the others.
 */
export const partlyAdmitted: Policy = view => {
  const end = admissionEnd(view)
  if (end === undefined || !(isPast(end, view.now) || view.gang.some(isLonely))) return undefined
  const held = view.gang.filter(pod => pod !== undefined).length
  const text = { reason: 'AdmissionTimeout', held, what: 'were admitted', message: view.status.message ?? '' }
  const size = smallerSize(view, held)
  return size === undefined ? giveBack(view, text) : startSmaller(view, { ...text, size })
}

/** Whether a worker gave up because others were missing. */
const isLonely = (pod: Pod | undefined): boolean =>
  outcomeOf(pod) === 'failed' && PEERS_MISSING.has(workerEnd(pod)?.exitCode ?? EXIT.ok.code)
const PEERS_MISSING: ReadonlySet<number> = new Set([EXIT.rendezvous.code, EXIT.peerLost.code])

type Wait = { reason: string; held: number; what: string; message: string }

function startSmaller(view: View, { held, what, size, message }: Wait & { size: number }): Decision {
  const { timeoutSeconds } = view.spec.scheduling
  return {
    state: 'Queued',
    reason: 'ScaledDown',
    message: `${held} of ${view.gang.length} workers ${what} after ${timeoutSeconds} s: the gang starts with ${size}; ${message}`,
    changes: {
      attempt: view.attempt + 1,
      size,
      nextRestartTime: exactTime(view.now),
      nextResizeTime: resizePause(view),
    },
    requeueAt: view.now,
  }
}

function giveBack(view: View, { reason, held, what, message }: Wait): Decision {
  const { scheduling, failurePolicy } = view.spec
  const next = Math.ceil(view.now + failurePolicy.backoff.initialSeconds * 1000 + spread(view))
  return {
    state: 'Queued',
    reason,
    message: `${held} of ${view.gang.length} workers ${what} for ${scheduling.timeoutSeconds} s and gave them back; ${message}`,
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

// Deadlines of a job: for its whole time, for becoming ready, and for finishing a step.

import { isScheduled, scheduledTime, unreadySince } from '../objects/pod-state.ts'
import { type Pod, podName } from '../objects/wire.ts'
import { workerOf } from '../objects/workers.ts'
import type { Decision, Policy } from './decision.ts'
import { countWorkers, type PodFailure } from './gang.ts'
import { earliest, instant, isPast, timestamp } from './time.ts'
import { worstTrouble } from './trouble.ts'
import { hasRun, isLive, type View } from './view.ts'

const seconds = (n: number) => n * 1000

/** When the first worker of the gang got its node. */
const firstScheduled = ({ gang }: View) => earliest(gang.map(pod => instant(scheduledTime(pod))))

/**
 * When the gang has to be ready. Undefined while no worker has a node, and once all workers were
 * ready together.
 */
const startupEnd = (view: View): number | undefined => {
  const start = firstScheduled(view)
  if (start === undefined || !view.created || hasRun(view)) return undefined
  return start + seconds(view.spec.startupDeadlineSeconds)
}

/**
 * When a partly scheduled gang gives its nodes back or, if elastic, starts smaller. A gang that has
 * no nodes and cannot be smaller waits without a limit.
 */
export const queueEnd = (view: View): number | undefined => {
  const isElastic = view.spec.workers.minReplicas !== undefined
  const firstCreated = isElastic ? earliest(view.gang.map(pod => instant(pod?.metadata.creationTimestamp))) : undefined
  const start = firstScheduled(view) ?? firstCreated
  if (start === undefined || !view.created || view.gang.every(isScheduled)) return undefined
  return start + seconds(view.spec.scheduling.timeoutSeconds)
}

/**
 * When a gang of which the API server admits only some objects gives its pods back or, if elastic,
 * starts smaller. Undefined for a gang that has everything, or no pod.
 */
export const admissionEnd = ({ gang, service, created, status, spec }: View): number | undefined => {
  const isRefused = status.reason !== undefined && REFUSALS.has(status.reason)
  if (created || !isRefused || (service !== undefined && gang.every(pod => pod !== undefined))) return undefined
  const first = earliest(gang.map(pod => instant(pod?.metadata.creationTimestamp)))
  return first === undefined ? undefined : first + seconds(spec.scheduling.timeoutSeconds)
}
const REFUSALS: ReadonlySet<string> = new Set(['CreateRefused', 'CreateFailed'])

/** A job is never active before it exists, whatever clock the operator that started it had. */
const activeEnd = ({ spec, status, job }: View): number | undefined => {
  const started = instant(status.startTime)
  const start = started === undefined ? undefined : Math.max(started, instant(job.metadata.creationTimestamp) ?? 0)
  return start === undefined || spec.activeDeadlineSeconds === undefined
    ? undefined
    : start + seconds(spec.activeDeadlineSeconds)
}

/** Restarts do not extend the active deadline. A suspension ends it, and it starts again later. */
export const expired: Policy = view => {
  if (!isPast(activeEnd(view), view.now)) return undefined
  return {
    state: 'Failed',
    reason: 'ActiveDeadlineExceeded',
    message: `the job was active for activeDeadlineSeconds, ${view.spec.activeDeadlineSeconds} s`,
    changes: { completionTime: timestamp(view.now), nextRestartTime: null },
    deadline: 'activeDeadlineSeconds',
  }
}

type Missed = Pick<PodFailure, 'podName' | 'nodeName' | 'container' | 'reason' | 'message'>

/**
 * The failure of a gang that is not ready in time or does not finish a step. The failure is that of
 * a worker that is not ready, otherwise that of rank 0.
 */
export function overdue(view: View): PodFailure | undefined {
  const missed = view.created ? missedDeadline(view) : undefined
  if (missed === undefined) return undefined
  return {
    worker: 0,
    ...missed,
    act: 'worker',
    counts: true,
    byItself: false,
    verb: 'failed',
    permanent: false,
    deadline: true,
    attributedTo: 'self',
    at: view.now,
  }
}

function missedDeadline(view: View): Missed | undefined {
  const { now, spec, gang } = view
  const trouble = worstTrouble(gang, view.podWords)
  if (isPast(startupEnd(view), now) && trouble !== undefined) {
    const { ready } = countWorkers(view, 0)
    const isProbed = trouble.reason === 'WorkersStarting' && workerOf(spec.workers)['readinessProbe'] !== undefined
    const byProbe = isProbed ? ' by the readinessProbe of spec.workers.template' : ''
    return {
      podName: trouble.podName,
      nodeName: trouble.nodeName,
      ...(trouble.container === undefined ? {} : { container: trouble.container }),
      reason: 'StartupDeadlineExceeded',
      message: `${ready} of ${gang.length} workers were ready ${spec.startupDeadlineSeconds} s after the first got its node; ${trouble.message}${byProbe}`,
    }
  }
  const { provenMilliseconds, step } = stepAge(view)
  if (provenMilliseconds < seconds(spec.progressDeadlineSeconds)) return undefined
  return {
    podName: trouble?.podName ?? podName(view.name, 0),
    nodeName: trouble?.nodeName ?? gang[0]?.spec?.nodeName,
    reason: 'ProgressDeadlineExceeded',
    message: `no step was finished for ${spec.progressDeadlineSeconds} s after step ${step}; ${trouble?.message ?? 'all workers are ready'}`,
  }
}

type StepAge = {
  /** Step that was finished last, as far as is known, and since when that is the last one. */
  step: number
  since: number
  /** For how long there was certainly no other step. */
  provenMilliseconds: number
  /** For how long rank 0 has been ready without its step being known. */
  unknownMilliseconds: number
}

/**
 * How long ago the last step was finished. That a step is missing is proven in two ways: rank 0
 * answers and still names the step on record, or its node reports that rank 0 does not answer there
 * either. If only this operator cannot reach rank 0, nothing is proven. Otherwise a network failure
 * between the two would restart every job.
 */
function stepAge(view: View): StepAge {
  const { now, status } = view
  const running = status.conditions?.find(each => each.type === 'Running' && each.status === 'True')
  const began = instant(running?.lastTransitionTime)
  const step = status.progress?.step ?? 0
  if (!hasRun(view) || began === undefined) return { provenMilliseconds: 0, step, since: now, unknownMilliseconds: 0 }
  const answer = view.lastAnswer?.attempt === view.attempt ? view.lastAnswer : undefined
  const recorded = Math.max(began, instant(status.progress?.lastStepTime) ?? 0)
  const isNewStep = answer !== undefined && answer.step !== status.progress?.step
  const since = isNewStep ? Math.max(recorded, answer.at) : recorded
  const [first] = view.gang
  const unready = unreadyTime(view, first)
  const byAnswer = answer === undefined ? 0 : answer.at - since
  const byNode = unready === undefined ? 0 : now - Math.max(since, unready)
  return {
    provenMilliseconds: Math.max(0, byAnswer, byNode),
    step,
    since,
    unknownMilliseconds: unready === undefined ? now - Math.max(since, answer?.at ?? 0, view.watchedSince) : 0,
  }
}

/**
 * Since when a worker has certainly not been ready, undefined if it is ready. A container that
 * ended beside the worker may have made the pod not ready before. Then the time counts since when
 * the job has a worker that is not ready.
 */
function unreadyTime({ status }: View, worker: Pod | undefined): number | undefined {
  const since = unreadySince(worker)
  const ofPod = instant(since?.time)
  if (since === undefined || ofPod === undefined || since.exact) return ofPod
  const known = status.conditions?.find(each => each.type === 'WorkersReady' && each.status === 'False')
  const ofJob = instant(known?.lastTransitionTime)
  return ofJob === undefined ? undefined : Math.max(ofPod, ofJob)
}

/**
 * No step for half of the deadline. The user is told early enough to look at the processes before
 * the gang restarts.
 */
export const stalled: Policy = view => {
  if (!hasRun(view)) return undefined
  const { progressDeadlineSeconds, reporting } = view.spec
  const { provenMilliseconds, unknownMilliseconds, step, since } = stepAge(view)
  const half = seconds(progressDeadlineSeconds) / 2
  const again = view.now + seconds(reporting.intervalSeconds)
  if (provenMilliseconds >= half) {
    const end = since + seconds(progressDeadlineSeconds)
    return {
      state: 'Stalled',
      reason: 'NoStep',
      message: `no step was finished since ${timestamp(since)} (step ${step}); without one the gang fails at ${timestamp(end)}`,
      progressing: 'False',
      requeueAt: Math.max(end, again),
    }
  }
  if (unknownMilliseconds < half) return undefined
  return {
    state: 'Running',
    reason: 'ProgressUnknown',
    message: `${podName(view.name, 0)} is ready, but its progress cannot be read since ${timestamp(view.now - unknownMilliseconds)}: look at the operator's log`,
    progressing: 'Unknown',
    requeueAt: again,
  }
}

/** The next deadline of a job that stays in its state, undefined if it has none. */
export function nextDeadline(view: View, { state, changes = {} }: Decision): number | undefined {
  if (state === 'Complete' || state === 'Failed' || state === 'Suspended') return undefined
  const times = [activeEnd(view)]
  if (isLive(state) && changes.attempt === undefined) {
    const half = seconds(view.spec.progressDeadlineSeconds) / 2
    const again = view.now + seconds(view.spec.reporting.intervalSeconds)
    if (state === 'Running') times.push(Math.max(stepAge(view).since + half, again))
    else times.push(startupEnd(view), queueEnd(view), admissionEnd(view))
  }
  return earliest(times.filter(time => time === undefined || time > view.now))
}

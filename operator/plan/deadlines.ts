// What may take only so long: getting nodes for the whole gang, becoming ready, finishing a step. Pure: `now` is part of the view.

import { waitOf } from '../objects/providers.ts'
import { podName } from '../objects/wire.ts'
import { type Decision, deletions, earliest, exactTime, instant, type Policy, timestamp } from './decision.ts'
import { resizePause, smallerSize } from './elastic.ts'
import { type Blow, isReady } from './gang.ts'
import { isScheduled, scheduledTime, worstTrouble } from './trouble.ts'
import { countWorkers, isLive, type View } from './view.ts'

const seconds = (n: number) => n * 1000
const hasRun = ({ status }: View): boolean => status.state === 'Running' || status.state === 'Stalled'

/** When the first worker of the gang got its node: from here on the others are waited for. */
const firstScheduled = ({ gang }: View) => earliest(gang.map(pod => instant(scheduledTime(pod))))

/** When the gang has to be ready; undefined while nobody waits: no worker has a node, or all were ready once. */
const startupEnd = (view: View): number | undefined => {
  const start = firstScheduled(view)
  if (start === undefined || !view.created || hasRun(view)) return undefined
  return start + seconds(view.spec.startupDeadlineSeconds)
}

/**
 * When those that have a node give it back for the others have none, or when fewer than were asked for have to do. A gang
 * that holds nothing and cannot be smaller just waits.
 */
const queueEnd = (view: View): number | undefined => {
  const elastic = view.spec.workers.minReplicas !== undefined
  const made = elastic ? earliest(view.gang.map(pod => instant(pod?.metadata.creationTimestamp))) : undefined
  const start = firstScheduled(view) ?? made
  if (start === undefined || !view.created || view.gang.every(isScheduled)) return undefined
  return start + seconds(view.spec.scheduling.timeoutSeconds)
}

const activeEnd = ({ spec, status }: View): number | undefined => {
  const start = instant(status.startTime)
  return start === undefined || spec.activeDeadlineSeconds === undefined
    ? undefined
    : start + seconds(spec.activeDeadlineSeconds)
}

/** However often it restarted: a job that was suspended starts anew. */
export const expired: Policy = view => {
  if (view.now < (activeEnd(view) ?? Number.POSITIVE_INFINITY)) return undefined
  return {
    state: 'Failed',
    reason: 'ActiveDeadlineExceeded',
    message: `the job was active for activeDeadlineSeconds, ${view.spec.activeDeadlineSeconds} s`,
    changes: { completionTime: timestamp(view.now), nextRestartTime: null },
  }
}

/** The failure of a gang that is too late or hangs: who fails is whoever is not ready, else rank 0. */
export function overdue(view: View): Blow | undefined {
  const { now, spec, created } = view
  if (!created) return undefined
  const blow = (deadline: {
    reason: string
    message: string
    podName: string
    nodeName?: string | undefined
  }): Blow => ({
    rank: 0,
    ...deadline,
    permanent: false,
    deleted: false,
    deadline: true,
    distance: 0,
    at: now,
  })
  const trouble = worstTrouble(view.gang)
  const ready = countWorkers(view, 0).ready
  if (now >= (startupEnd(view) ?? Number.POSITIVE_INFINITY) && trouble !== undefined)
    return blow({
      ...trouble,
      reason: 'StartupDeadlineExceeded',
      message: `${ready} of ${view.gang.length} workers were ready ${spec.startupDeadlineSeconds} s after the first got its node; ${trouble.message}`,
    })
  const { silentMilliseconds, step } = silence(view)
  if (silentMilliseconds < seconds(spec.progressDeadlineSeconds)) return undefined
  return blow({
    podName: trouble?.podName ?? podName(view.name, 0),
    nodeName: trouble?.nodeName ?? view.gang[0]?.spec?.nodeName,
    reason: 'ProgressDeadlineExceeded',
    message: `no step was finished for ${spec.progressDeadlineSeconds} s after step ${step}; ${trouble?.message ?? 'all workers are ready'}`,
  })
}

type Silence = {
  /** For how long there has certainly been no step, as far as anyone was there to see it. */
  silentMilliseconds: number
  step: number
  since: number
  /** For how long rank 0, though ready, has not told its step. */
  unheardMilliseconds: number
}

/**
 * A step is missed on evidence only: rank 0 answers and still has the step on record, or its node says that it does not
 * answer there either. That this operator cannot reach it proves nothing, or a cut between the two would restart every job.
 */
function silence(view: View): Silence {
  const { now, status } = view
  const running = status.conditions?.find(each => each.type === 'Running' && each.status === 'True')
  const began = instant(running?.lastTransitionTime)
  const step = status.progress?.step ?? 0
  if (!hasRun(view) || began === undefined) return { silentMilliseconds: 0, step, since: now, unheardMilliseconds: 0 }
  const heard = view.heard?.attempt === view.attempt ? view.heard : undefined
  const recorded = Math.max(began, instant(status.progress?.lastStepTime) ?? 0)
  const moved = heard !== undefined && heard.step !== status.progress?.step
  const since = moved ? Math.max(recorded, heard.at) : recorded
  const [first] = view.gang
  const readiness = first?.status?.conditions?.find(({ type }) => type === 'Ready')
  const unready = isReady(first) ? undefined : instant(readiness?.lastTransitionTime)
  const told = heard === undefined ? 0 : heard.at - since
  const away = unready === undefined ? 0 : now - Math.max(since, unready)
  return {
    silentMilliseconds: Math.max(0, told, away),
    step,
    since,
    unheardMilliseconds: unready === undefined ? now - Math.max(since, heard?.at ?? 0, view.watchedSince) : 0,
  }
}

/** No step for half of the deadline: it is told, and there is time to look at the processes before the gang restarts. */
export const stalled: Policy = view => {
  if (!hasRun(view)) return undefined
  const { progressDeadlineSeconds, reporting } = view.spec
  const { silentMilliseconds, unheardMilliseconds, step, since } = silence(view)
  const half = seconds(progressDeadlineSeconds) / 2
  const again = view.now + seconds(reporting.intervalSeconds)
  if (silentMilliseconds >= half) {
    const end = since + seconds(progressDeadlineSeconds)
    return {
      state: 'Stalled',
      reason: 'NoStep',
      message: `no step was finished since ${timestamp(since)} (step ${step}); without one the gang fails at ${timestamp(end)}`,
      progressing: 'False',
      requeueAt: Math.max(end, again),
    }
  }
  if (unheardMilliseconds < half) return undefined
  return {
    state: 'Running',
    reason: 'ProgressUnknown',
    message: `${podName(view.name, 0)} is ready, but its progress cannot be read since ${timestamp(view.now - unheardMilliseconds)}: look at the operator's log`,
    progressing: 'Unknown',
    requeueAt: again,
  }
}

/** Some have no node; the provider says why for the gang, else the scheduler for a pod. Two gangs that wait for each other's would wait for ever, so what is held is given back in time. */
export const queued: Policy = view => {
  const end = queueEnd(view)
  const trouble = worstTrouble(view.gang)
  if (hasRun(view) || (trouble?.reason !== 'Unschedulable' && trouble?.reason !== 'SchedulingGated')) return undefined
  const { reason, message } = waitOf(view, view.groups ?? []) ?? trouble
  if (end === undefined || view.now < end) return { state: 'Queued', reason, message }
  const { timeoutSeconds } = view.spec.scheduling
  const held = view.gang.filter(isScheduled).length
  const count = `${held} of ${view.gang.length} workers`
  const size = smallerSize(view, held)
  if (size !== undefined)
    return {
      state: 'Queued',
      reason: 'ScaledDown',
      message: `${count} had nodes after ${timeoutSeconds} s: the gang starts with ${size}; ${message}`,
      changes: {
        attempt: view.attempt + 1,
        size,
        nextRestartTime: exactTime(view.now),
        nextResizeTime: resizePause(view),
      },
      requeueAt: view.now,
    }
  if (held === 0) return { state: 'Queued', reason, message }
  const pause = seconds(view.spec.failurePolicy.backoff.initialSeconds) + spread(view)
  const next = Math.ceil(view.now + pause)
  return {
    state: 'Queued',
    reason: 'SchedulingTimeout',
    message: `${count} had nodes for ${timeoutSeconds} s and gave them back; ${message}`,
    changes: { attempt: view.attempt + 1, nextRestartTime: exactTime(next) },
    actions: deletions(view.gang, 'the gang is queued again'),
    requeueAt: next,
  }
}

/** Up to half of the time-out, another for each job and attempt: gangs that gave way together do not come back together. */
function spread({ uid, attempt, spec }: View): number {
  let hash = attempt
  for (const letter of uid) hash = (Math.imul(hash, 31) + (letter.codePointAt(0) ?? 0)) >>> 0
  return seconds(spec.scheduling.timeoutSeconds) * ((hash % 1000) / 2000)
}

/** When to look at a job that goes on as it is: the next of its deadlines. */
export function nextDeadline(view: View, { state, changes = {} }: Decision): number | undefined {
  if (state === 'Complete' || state === 'Failed' || state === 'Suspended') return undefined
  const times = [activeEnd(view)]
  if (isLive(state) && changes.attempt === undefined) {
    const half = seconds(view.spec.progressDeadlineSeconds) / 2
    const again = view.now + seconds(view.spec.reporting.intervalSeconds)
    if (state === 'Running') times.push(Math.max(silence(view).since + half, again))
    else times.push(startupEnd(view), queueEnd(view))
  }
  return earliest(times.filter(time => time === undefined || time > view.now))
}

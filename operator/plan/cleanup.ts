// What becomes of pods that have to go, and of a job that is over. Pure.

import type { Pod } from '../objects/wire.ts'
import { type Action, deletions, earliest, instant, type Policy } from './decision.ts'
import { isOver } from './gang.ts'
import { isOwnedBy, type View } from './view.ts'

/** All pods of this job, of whatever attempt. */
export const ours = (view: View): Pod[] =>
  [...view.gang, ...view.others].filter(pod => pod !== undefined).filter(pod => isOwnedBy(pod, view.uid))

/** Complete and Failed never change again; which pods stay is said by cleanPodPolicy, and how long the job does by its ttl. */
export const finished: Policy = view => {
  const { state, reason = '', message = '', completionTime } = view.status
  const terminal = view.status.conditions?.some(
    ({ type, status }) => (type === 'Complete' || type === 'Failed') && status === 'True',
  )
  if (!terminal || state === undefined) return undefined
  const end = instant(completionTime)
  const { ttlSecondsAfterFinished: ttl, cleanPodPolicy } = view.spec
  const gone = ttl === undefined || end === undefined ? undefined : end + ttl * 1000
  const decision = { state, reason, message, frozen: true } as const
  if (gone !== undefined && view.now >= gone)
    return { ...decision, actions: [{ kind: 'deleteJob', because: `it was finished ${ttl} s ago` }] }
  const doomed = ours(view).filter(pod => cleanPodPolicy === 'All' || (cleanPodPolicy === 'Running' && !isOver(pod)))
  const actions = deletions(doomed, 'the job is finished')
  return { ...decision, actions, ...(gone === undefined ? {} : { requeueAt: gone }) }
}

/** deletionTimestamp is when the grace period is over: from then on the kubelet would have killed it, if there were one. */
function forceTime(pod: Pod, { spec }: View): number | undefined {
  const end = instant(pod.metadata.deletionTimestamp)
  const { podTerminationTimeoutSeconds: seconds } = spec
  return end === undefined || seconds === undefined ? undefined : end + seconds * 1000
}

/** Pods that should have ended long ago: nobody is left on their nodes to say that they have. */
export const overstayed = (view: View): Pod[] =>
  ours(view).filter(pod => view.now >= (forceTime(pod, view) ?? Number.POSITIVE_INFINITY))

export const forcedDeletions = (view: View): Action[] =>
  overstayed(view).map(pod => ({ kind: 'delete', pod, because: 'it does not end', force: true }))

export const nextForced = (view: View): number | undefined =>
  earliest(
    ours(view)
      .map(pod => forceTime(pod, view))
      .filter(time => time === undefined || time > view.now),
  )

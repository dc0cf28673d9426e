// Decides which pods are deleted, and when a finished job is deleted.

import { isOwnedBy } from '../objects/owned.ts'
import { isOver, isStopping } from '../objects/pod-state.ts'
import { KUEUE_GROUP_LABEL } from '../objects/providers.ts'
import type { KubeObject, Pod } from '../objects/wire.ts'
import { type Action, deletions, type Policy } from './decision.ts'
import { earliest, instant, isPast } from './time.ts'
import type { Leftovers, Observed, View } from './view.ts'

/** All pods of this job, whatever their attempt. */
export const podsOf = (view: View): Pod[] =>
  [...view.gang, ...view.others].filter(pod => pod !== undefined).filter(pod => isOwnedBy(pod, view.uid))

/**
 * Complete and Failed never change again. `cleanPodPolicy` says which pods stay, and
 * `ttlSecondsAfterFinished` says how long the job stays.
 */
export const finished: Policy = view => {
  const { state, reason = '', message = '', completionTime } = view.status
  const terminal = view.status.conditions?.some(
    ({ type, status }) => (type === 'Complete' || type === 'Failed') && status === 'True',
  )
  if (!terminal || state === undefined) return undefined
  const end = instant(completionTime)
  const { ttlSecondsAfterFinished: ttl, cleanPodPolicy } = view.spec
  const expiry = ttl === undefined || end === undefined ? undefined : end + ttl * 1000
  const decision = { state, reason, message, frozen: true } as const
  if (isPast(expiry, view.now))
    return {
      ...decision,
      deadline: 'ttlSecondsAfterFinished',
      actions: [{ kind: 'deleteJob', job: view.job, because: `it was finished ${ttl} s ago` }],
    }
  const unwanted = podsOf(view).filter(
    pod => cleanPodPolicy === 'All' || (cleanPodPolicy === 'Running' && !isOver(pod)),
  )
  const actions = deletions(unwanted, 'the job is finished')
  return { ...decision, actions, ...(expiry === undefined ? {} : { requeueAt: expiry }) }
}

/**
 * When a pod that was told to stop is deleted by force. deletionTimestamp is the end of its grace
 * period, by which a kubelet that still runs has killed it.
 */
function forceTime(pod: Pod, { spec }: View): number | undefined {
  const end = instant(pod.metadata.deletionTimestamp)
  const { podTerminationTimeoutSeconds: seconds } = spec
  return end === undefined || seconds === undefined ? undefined : end + seconds * 1000
}

/** Pods that should have ended long ago. No kubelet is left on their nodes to confirm the end. */
export const stuckPods = (view: View): Pod[] => podsOf(view).filter(pod => isPast(forceTime(pod, view), view.now))

export const forcedDeletions = (view: View): Action[] =>
  stuckPods(view).map(pod => ({ kind: 'delete', pod, because: 'it does not end', force: true }))

export const nextForced = (view: View): number | undefined =>
  earliest(
    podsOf(view)
      .map(pod => forceTime(pod, view))
      .filter(time => time === undefined || time > view.now),
  )

/**
 * Workloads of Kueue that keep their pods from ending. Kueue keeps a finalizer on each pod of a
 * group until the group is over. The group is never over if a pod was deleted without a kubelet
 * that could end it: before the pod got a node, or by force because its node is gone. Kueue removes
 * the finalizers once the Workload is deleted.
 */
function abandoned(pods: readonly Pod[], groups: readonly KubeObject[]): KubeObject[] {
  return groups.filter(({ metadata: { name } }) => {
    const members = pods.filter(pod => pod.metadata.labels?.[KUEUE_GROUP_LABEL] === name)
    const hasNoKubelet = members.some(pod => isStopping(pod) && pod.metadata.deletionGracePeriodSeconds === 0)
    return hasNoKubelet && members.every(isStopping)
  })
}

export const workloadDeletions = ({ pods, groups = [] }: Observed | Leftovers): Action[] =>
  abandoned(pods, groups).map(workload => ({
    kind: 'deleteWorkload',
    workload,
    because: 'its pods have no kubelet that could end them',
  }))

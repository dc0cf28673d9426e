// Facts about one pod: whether it has a node, is ready, has ended, and how its worker ended.

import { CONTAINER, TerminationRecord } from '../../crds/contract.ts'
import type { ContainerStatus, Pod, PodCondition } from './wire.ts'

export type Outcome = 'missing' | 'active' | 'succeeded' | 'failed'
export type Terminated = NonNullable<NonNullable<ContainerStatus['state']>['terminated']>

/** How the worker container ended, undefined while it has not. */
export function workerEnd(pod: Pod | undefined): Terminated | undefined {
  return pod?.status?.containerStatuses?.find(container => container.name === CONTAINER)?.state?.terminated
}

/**
 * The worker's termination message. It is undefined where the worker left none, or where the
 * message is the end of the log instead, which Kubernetes then puts in its place.
 */
export function terminationRecord(pod: Pod | undefined): TerminationRecord | undefined {
  const text = workerEnd(pod)?.message
  if (text === undefined || !text.startsWith('{')) return undefined
  try {
    const parsed = TerminationRecord.safeParse(JSON.parse(text))
    return parsed.success ? parsed.data : undefined
  } catch {
    return undefined
  }
}

/** Judged by the worker container alone, so that sidecars, running or failed, do not matter. */
export function outcomeOf(pod: Pod | undefined): Outcome {
  if (pod === undefined) return 'missing'
  const end = workerEnd(pod)
  if (end !== undefined) return end.exitCode === 0 ? 'succeeded' : 'failed'
  if (pod.status?.phase === 'Succeeded') return 'succeeded'
  return pod.status?.phase === 'Failed' ? 'failed' : 'active'
}

/**
 * Whether none of the pod's containers runs any more. The kubelet reports that the containers have
 * ended a moment before it sets the phase.
 */
export function isOver({ status: { phase, containerStatuses = [] } = {} }: Pod): boolean {
  if (phase === 'Succeeded' || phase === 'Failed') return true
  return containerStatuses.length > 0 && containerStatuses.every(({ state }) => state?.terminated !== undefined)
}

/**
 * Whether a condition says that the pod was taken away: by Kubernetes (eviction, preemption,
 * drain) or by Kueue (preemption, deletion of its Workload).
 */
export const isDisruption = ({ type, status }: PodCondition): boolean =>
  (type === 'DisruptionTarget' || type === 'TerminationTarget') && status === 'True'

/** Whether the pod was told to stop. */
export const isStopping = (pod: Pod | undefined): boolean => pod?.metadata.deletionTimestamp !== undefined

export const isReady = (pod: Pod | undefined): boolean =>
  !isStopping(pod) &&
  outcomeOf(pod) === 'active' &&
  (pod?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false)

/** Why the scheduler, or a scheduling gate, has not given the pod a node. */
export type Unplaced = { reason: 'Unschedulable' | 'SchedulingGated'; message: string }

const scheduling = (pod: Pod) => pod.status?.conditions?.find(({ type }) => type === 'PodScheduled')

/** Undefined if the pod has a node, or if nobody has said yet why it has none. */
export function unplaced(pod: Pod): Unplaced | undefined {
  const { status, reason, message = '' } = scheduling(pod) ?? {}
  if (status !== 'False' || (reason !== 'Unschedulable' && reason !== 'SchedulingGated')) return undefined
  return { reason, message: `${pod.metadata.name}: ${message}` }
}

/** Whether the pod has a node. Until then it occupies no resources. */
export const isScheduled = (pod: Pod | undefined): boolean =>
  pod !== undefined &&
  (pod.spec?.nodeName !== undefined || scheduling(pod)?.status === 'True') &&
  unplaced(pod) === undefined

/** When the pod got its node (RFC 3339), undefined where it has none or does not say. */
export const scheduledTime = (pod: Pod | undefined): string | undefined =>
  pod !== undefined && isScheduled(pod) ? scheduling(pod)?.lastTransitionTime : undefined

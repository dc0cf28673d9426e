// Facts about one pod: whether it has a node, is ready and has ended. How it ended is in
// pod-end.ts.

import { CONTAINER, TerminationRecord } from '../../crds/contract.ts'
import type { ContainerStatus, Pod, PodCondition } from './wire.ts'

export type Outcome = 'missing' | 'active' | 'succeeded' | 'failed'
export type Terminated = NonNullable<NonNullable<ContainerStatus['state']>['terminated']>

/** The status of the worker container. */
export const workerStatus = (pod: Pod | undefined): ContainerStatus | undefined =>
  pod?.status?.containerStatuses?.find(container => container.name === CONTAINER)

/** How the worker container ended, undefined while it has not. */
export const workerEnd = (pod: Pod | undefined): Terminated | undefined => workerStatus(pod)?.state?.terminated

/** Whether this init container is a sidecar: it runs on while the worker runs. */
export const isSidecar = ({ spec }: Pod, name: string): boolean =>
  spec?.initContainers?.some(each => each.name === name && each.restartPolicy === 'Always') ?? false

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

const condition = (pod: Pod | undefined, wanted: string): PodCondition | undefined =>
  pod?.status?.conditions?.find(({ type }) => type === wanted)

/**
 * Whether the pod's node does not answer. The node controller then takes back the pod's readiness
 * alone, and leaves what the kubelet last said of the containers.
 */
function isCutOff(pod: Pod | undefined): boolean {
  const { status, reason } = condition(pod, 'Ready') ?? {}
  const areContainersReady = condition(pod, 'ContainersReady')?.status === 'True'
  return status === 'False' && areContainersReady && reason !== 'ReadinessGatesNotReady'
}

/**
 * Judged by the worker container alone. A container that ended beside it makes the pod not ready,
 * and the worker trains on.
 */
export const isReady = (pod: Pod | undefined): boolean =>
  !isStopping(pod) && outcomeOf(pod) === 'active' && workerStatus(pod)?.ready === true && !isCutOff(pod)

/**
 * Since when the worker has not been ready (RFC 3339), undefined if it is ready or nobody says.
 * `exact` is false if another container may have made the pod not ready before.
 */
export function unreadySince(pod: Pod | undefined): { time: string; exact: boolean } | undefined {
  const { status, lastTransitionTime } = condition(pod, 'Ready') ?? {}
  if (isReady(pod) || status !== 'False' || lastTransitionTime === undefined) return undefined
  const others = pod?.status?.containerStatuses?.filter(({ name }) => name !== CONTAINER) ?? []
  return { time: lastTransitionTime, exact: others.every(({ ready }) => ready === true) }
}

/** Why the scheduler, or a scheduling gate, has not given the pod a node. */
export type Unplaced = { reason: 'Unschedulable' | 'SchedulingGated'; message: string }

const scheduling = (pod: Pod) => condition(pod, 'PodScheduled')

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

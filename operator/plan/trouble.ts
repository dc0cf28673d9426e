// Why a pod is not ready, in the words of whoever holds it up: scheduler, registry, kubelet. Pure.

import type { Pod } from '../objects/wire.ts'
import { isReady, outcomeOf } from './gang.ts'

export type Trouble = {
  podName: string
  nodeName?: string
  /** One CamelCase word. */
  reason: 'Unschedulable' | 'SchedulingGated' | 'ImagePull' | 'ContainerConfig' | 'WorkersStarting'
  message: string
}

/** The worst comes first: of several pods in trouble that one is named. */
const SEVERITY: readonly Trouble['reason'][] = [
  'Unschedulable',
  'SchedulingGated',
  'ImagePull',
  'ContainerConfig',
  'WorkersStarting',
]
const PULL_REASONS: ReadonlySet<string> = new Set([
  'ImagePullBackOff',
  'ErrImagePull',
  'InvalidImageName',
  'ErrImageNeverPull',
  'RegistryUnavailable',
])
const CONFIG_REASONS: ReadonlySet<string> = new Set(['CreateContainerConfigError', 'CreateContainerError'])

const scheduling = (pod: Pod) => pod.status?.conditions?.find(({ type }) => type === 'PodScheduled')

/** Has its node; until then it holds nothing. */
export const isScheduled = (pod: Pod | undefined): boolean =>
  pod !== undefined &&
  (pod.spec?.nodeName !== undefined || scheduling(pod)?.status === 'True') &&
  unplaced(pod) === undefined

function unplaced(pod: Pod): { reason: 'Unschedulable' | 'SchedulingGated'; message: string } | undefined {
  const { status, reason, message = '' } = scheduling(pod) ?? {}
  if (status !== 'False' || (reason !== 'Unschedulable' && reason !== 'SchedulingGated')) return undefined
  return { reason, message: `${pod.metadata.name}: ${message}` }
}

/** When it got its node, as far as it says so. */
export const scheduledTime = (pod: Pod | undefined): string | undefined =>
  pod !== undefined && isScheduled(pod) ? scheduling(pod)?.lastTransitionTime : undefined

/** Undefined where it is ready or over. */
export function troubleOf(pod: Pod): Trouble | undefined {
  if (isReady(pod) || outcomeOf(pod) !== 'active') return undefined
  const place = {
    podName: pod.metadata.name,
    ...(pod.spec?.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
  }
  const name = pod.metadata.name
  const homeless = unplaced(pod)
  if (homeless !== undefined) return { ...place, ...homeless }
  const containers = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]
  for (const { image = '', state } of containers) {
    const { reason = '', message = '' } = state?.waiting ?? {}
    if (PULL_REASONS.has(reason)) return { ...place, reason: 'ImagePull', message: cannotPull(name, image, message) }
    if (CONFIG_REASONS.has(reason)) return { ...place, reason: 'ContainerConfig', message: `${name}: ${message}` }
  }
  return { ...place, reason: 'WorkersStarting', message: `${name} is not ready` }
}

/** Of the lowest rank among those that are worst off. */
export function worstTrouble(pods: readonly (Pod | undefined)[]): Trouble | undefined {
  return pods
    .flatMap(pod => (pod === undefined ? [] : (troubleOf(pod) ?? [])))
    .toSorted((a, b) => SEVERITY.indexOf(a.reason) - SEVERITY.indexOf(b.reason))[0]
}

/** Between two tries the kubelet wraps the registry's error into "Back-off pulling image"; the text should not flip. */
function cannotPull(pod: string, image: string, message: string): string {
  const inner = /ErrImagePull: (.*)$/s.exec(message)?.[1] ?? (message.startsWith('Back-off') ? '' : message)
  return `${pod} cannot pull image "${image}"${inner === '' ? '' : `: ${inner}`}`
}

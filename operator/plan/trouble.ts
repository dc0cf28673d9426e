// Why a pod is not ready: the scheduler, the registry or the kubelet holds it up.

import { isReady, outcomeOf, type Unplaced, unplaced } from '../objects/pod-state.ts'
import type { Pod } from '../objects/wire.ts'

export type Trouble = {
  podName: string
  nodeName?: string
  /** One CamelCase word. */
  reason: Unplaced['reason'] | 'ImagePull' | 'ContainerConfig' | 'WorkersStarting'
  message: string
}

/** The most serious reason comes first. Of several pods in trouble, that one is named. */
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

/** Undefined if the pod is ready or has ended. */
export function troubleOf(pod: Pod): Trouble | undefined {
  if (isReady(pod) || outcomeOf(pod) !== 'active') return undefined
  const place = {
    podName: pod.metadata.name,
    ...(pod.spec?.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
  }
  const name = pod.metadata.name
  const withoutNode = unplaced(pod)
  if (withoutNode !== undefined) return { ...place, ...withoutNode }
  const containers = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]
  for (const { image = '', state } of containers) {
    const { reason = '', message = '' } = state?.waiting ?? {}
    if (PULL_REASONS.has(reason)) return { ...place, reason: 'ImagePull', message: cannotPull(name, image, message) }
    if (CONFIG_REASONS.has(reason)) return { ...place, reason: 'ContainerConfig', message: `${name}: ${message}` }
  }
  return { ...place, reason: 'WorkersStarting', message: `${name} is not ready` }
}

/** The most serious trouble of a gang. Of equally serious ones, that of the lowest worker. */
export function worstTrouble(pods: readonly (Pod | undefined)[]): Trouble | undefined {
  return pods
    .flatMap(pod => (pod === undefined ? [] : (troubleOf(pod) ?? [])))
    .toSorted((a, b) => SEVERITY.indexOf(a.reason) - SEVERITY.indexOf(b.reason))[0]
}

/**
 * Between two tries the kubelet wraps the registry's error into "Back-off pulling image". The text
 * leaves that out, so that it stays the same from try to try.
 */
function cannotPull(pod: string, image: string, message: string): string {
  const inner = /ErrImagePull: (.*)$/s.exec(message)?.[1] ?? (message.startsWith('Back-off') ? '' : message)
  return `${pod} cannot pull image "${image}"${inner === '' ? '' : `: ${inner}`}`
}

// Why a pod is not ready: the scheduler, the registry or the kubelet holds it up.

import { CONTAINER } from '../../crds/contract.ts'
import { isReady, isSidecar, outcomeOf, type Unplaced, unplaced, workerStatus } from '../objects/pod-state.ts'
import { isPreparing, type PodWords } from '../objects/pod-words.ts'
import type { ContainerStatus, Pod } from '../objects/wire.ts'

export type Trouble = {
  podName: string
  nodeName?: string
  /** The container that is the trouble, if it is not the worker. */
  container?: string
  /** One CamelCase word. */
  reason: Unplaced['reason'] | 'ImagePull' | 'ContainerConfig' | 'VolumeMount' | 'InitContainers' | 'WorkersStarting'
  message: string
}

/** The most serious reason comes first. Of several pods in trouble, that one is named. */
const SEVERITY: readonly Trouble['reason'][] = [
  'Unschedulable',
  'SchedulingGated',
  'ImagePull',
  'ContainerConfig',
  'VolumeMount',
  'InitContainers',
  'WorkersStarting',
]
/** Reasons that the user can do something about. */
export const HELD_UP: ReadonlySet<Trouble['reason']> = new Set([
  'ImagePull',
  'ContainerConfig',
  'VolumeMount',
  'InitContainers',
])
const PULL_REASONS: ReadonlySet<string> = new Set([
  'ImagePullBackOff',
  'ErrImagePull',
  'InvalidImageName',
  'ErrImageNeverPull',
  'ImageInspectError',
  'RegistryUnavailable',
  'SignatureValidationFailed',
])
const CONFIG_REASONS: ReadonlySet<string> = new Set([
  'CreateContainerConfigError',
  'CreateContainerError',
  'PreCreateHookError',
  'PreStartHookError',
  'PostStartHookError',
  'RunContainerError',
])

/** Undefined if the worker is ready or has ended. */
export function troubleOf(pod: Pod, words: PodWords = new Map()): Trouble | undefined {
  if (isReady(pod) || outcomeOf(pod) !== 'active') return undefined
  const name = pod.metadata.name
  const place = {
    podName: name,
    ...(pod.spec?.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
  }
  const withoutNode = unplaced(pod)
  if (withoutNode !== undefined) return { ...place, ...withoutNode }
  for (const container of blocking(pod)) {
    const found = waits(name, container) ?? initializes(pod, container)
    if (found === undefined) continue
    return { ...place, ...(container.name === CONTAINER ? {} : { container: container.name }), ...found }
  }
  const said = isPreparing(pod) ? words.get(pod.metadata.uid ?? '') : undefined
  if (said !== undefined) return { ...place, reason: 'VolumeMount', message: `${name}: ${said}` }
  const state = workerStatus(pod)?.state?.waiting?.reason
  const still = state === undefined ? '' : ` (${state})`
  return { ...place, reason: 'WorkersStarting', message: `${name} is not ready${still}` }
}

/** The containers that the worker waits for, and the worker itself. */
function blocking({ status }: Pod): ContainerStatus[] {
  const worker = status?.containerStatuses?.filter(({ name }) => name === CONTAINER) ?? []
  const hasBegun = worker.some(({ state }) => state?.running !== undefined)
  return hasBegun ? [] : [...(status?.initContainerStatuses ?? []), ...worker]
}

type Found = Pick<Trouble, 'reason' | 'message'>

function waits(pod: string, { name, image = '', state }: ContainerStatus): Found | undefined {
  const { reason = '', message = '' } = state?.waiting ?? {}
  if (PULL_REASONS.has(reason)) return { reason: 'ImagePull', message: cannotPull(pod, image, message) }
  if (CONFIG_REASONS.has(reason)) return { reason: 'ContainerConfig', message: `${pod}: ${message || reason}` }
  if (reason === 'CrashLoopBackOff' || (reason === 'Error' && name !== CONTAINER))
    return { reason: 'InitContainers', message: `${pod}: container ${name} ends again and again` }
  return undefined
}

/** An init container that runs, or a sidecar before the worker that has not passed its probe. */
function initializes(pod: Pod, { name, state, started }: ContainerStatus): Found | undefined {
  if (state?.running === undefined || name === CONTAINER) return undefined
  const { name: podName } = pod.metadata
  if (!isSidecar(pod, name))
    return { reason: 'InitContainers', message: `${podName}: init container ${name} has not ended` }
  if (started !== false) return undefined
  return { reason: 'InitContainers', message: `${podName}: the startupProbe of sidecar ${name} has not succeeded` }
}

/** The most serious trouble of a gang. Of equally serious ones, that of the lowest worker. */
export function worstTrouble(pods: readonly (Pod | undefined)[], words?: PodWords): Trouble | undefined {
  return pods
    .flatMap(pod => (pod === undefined ? [] : (troubleOf(pod, words) ?? [])))
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

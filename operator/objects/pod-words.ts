// Why the volumes of a pod are not there, as its events say.

import type { Pod } from './wire.ts'

/** The words of events, by the pod's uid. */
export type PodWords = ReadonlyMap<string, string>

/** An event of events.k8s.io/v1, as far as it is read. */
export type PodEvent = { type?: string; reason?: string; note?: string }

/** The reasons, the one that tells most first. */
const REASONS: readonly string[] = ['FailedAttachVolume', 'FailedMount', 'FailedMapVolume', 'FailedCreatePodSandBox']
/** The kubelet's summary of what other events say in detail. */
const SUMMARY = /^Unable to attach or mount volumes/

/** `reason: note` of the event that tells most, undefined if no event tells anything. */
export function wordsOf(events: readonly PodEvent[]): string | undefined {
  const place = ({ reason = '', note = '' }: PodEvent) =>
    REASONS.indexOf(reason) + (SUMMARY.test(note) ? REASONS.length : 0)
  const [first] = events
    .filter(({ type, reason = '' }) => type === 'Warning' && REASONS.includes(reason))
    .toSorted((a, b) => place(a) - place(b) || (a.note ?? '').localeCompare(b.note ?? ''))
  return first === undefined ? undefined : `${first.reason}: ${first.note ?? ''}`.trim()
}

/** Whether the pod has a node, and nothing of it runs yet. Volumes are mounted at this time. */
export function isPreparing({ spec, status }: Pod): boolean {
  if (spec?.nodeName === undefined || status?.phase !== 'Pending') return false
  const containers = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])]
  // With this condition the kubelet says that volumes and network are there, and images are next.
  const isPrepared = status.conditions?.some(
    ({ type, status: holds }) => type === 'PodReadyToStartContainers' && holds === 'True',
  )
  return isPrepared !== true && containers.every(({ state }) => state?.running === undefined && !state?.terminated)
}

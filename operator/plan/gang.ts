// The workers of one attempt together: how many are ready, who succeeded, and who failed first.

import { EXIT, type Failure, LABEL } from '../../crds/contract.ts'
import { ranksPerWorker } from '../../crds/ranks.ts'
import type { WorkersStatus } from '../../crds/status.ts'
import { type End, endOf } from '../objects/pod-end.ts'
import { isReady, isStopping, outcomeOf, terminationRecord } from '../objects/pod-state.ts'
import { type Pod, type PodCondition, podName } from '../objects/wire.ts'
import { workerOf } from '../objects/workers.ts'
import { instant } from './time.ts'
import type { View } from './view.ts'

/** How one pod failed. */
export type PodFailure = Omit<End, 'finishedAt'> & {
  /** The worker's number. */
  worker: number
  podName: string
  nodeName?: string | undefined
  permanent: boolean
  /** The gang missed a deadline. No process ended. */
  deadline?: true
  /** The pod's conditions. */
  conditions?: readonly PodCondition[] | undefined
  /**
   * `self`: the pod failed by itself or was deleted. `signal`: the worker was told to stop.
   * `peer`: the worker says that another rank failed.
   */
  attributedTo: 'self' | 'signal' | 'peer'
  /** Milliseconds since 1970, by the clock of the pod's node. */
  at: number
}

/** Failures that nothing else in the gang explains come first. */
const ATTRIBUTIONS: readonly PodFailure['attributedTo'][] = ['self', 'signal', 'peer']
const PEER_REASONS: ReadonlySet<string> = new Set(['peerLost', 'rendezvous'] satisfies (keyof typeof EXIT)[])
const PEER_CODES: ReadonlySet<number> = new Set([EXIT.peerLost.code, EXIT.rendezvous.code])

type Gang = Pick<View, 'gang' | 'gonePods' | 'attempt' | 'uid' | 'spec'>

/** The failure that ended this attempt: the first one that no other failure explains. */
export function firstFailure(view: Gang & Pick<View, 'name' | 'created' | 'now'>): PodFailure | undefined {
  const { gang, created } = view
  const failures = gang.flatMap((pod, worker) => {
    if (!created && (outcomeOf(pod) !== 'failed' || isStopping(pod))) return []
    const failure = pod === undefined ? failureOfMissing(worker, view) : failureOf(pod, worker, view)
    return failure === undefined ? [] : [failure]
  })
  const order = ({ attributedTo }: PodFailure) => ATTRIBUTIONS.indexOf(attributedTo)
  return failures.toSorted((a, b) => order(a) - order(b) || a.at - b.at || a.worker - b.worker)[0]
}

/** The last known state of a worker's pod that is gone, if it was one of this attempt. */
const goneFrom = ({ gonePods = [], attempt, uid, spec }: Gang, worker: number): Pod | undefined =>
  gonePods.find(
    ({ metadata: { labels } }) =>
      labels?.[LABEL.jobUid] === uid &&
      labels[LABEL.attempt] === String(attempt) &&
      labels[LABEL.rank] === String(worker * ranksPerWorker(spec)),
  )

/** A worker's pod, or its last known state if it is gone by now. */
export const lastSeen = (view: Gang, worker: number): Pod | undefined => view.gang[worker] ?? goneFrom(view, worker)

/** Whether a worker ended by itself with exit code 0, even if its pod is gone by now. */
export const hasSucceeded = (view: Gang, worker: number): boolean => outcomeOf(lastSeen(view, worker)) === 'succeeded'

export function countWorkers(view: Gang, desired: number): WorkersStatus {
  const outcomes = view.gang.map(pod => outcomeOf(pod))
  const number = (outcome: string) => outcomes.filter(each => each === outcome).length
  return {
    desired,
    ready: view.gang.filter(isReady).length,
    active: number('active'),
    succeeded: view.gang.filter((_, worker) => hasSucceeded(view, worker)).length,
    failed: number('failed'),
    selector: `${LABEL.jobUid}=${view.uid}`,
  }
}

/** A pod that is missing was deleted, unless its last known state says that it had ended. */
function failureOfMissing(worker: number, view: Gang & Pick<View, 'name' | 'now'>): PodFailure | undefined {
  const gone = goneFrom(view, worker)
  if (outcomeOf(gone) === 'succeeded') return undefined
  const isGone = outcomeOf(gone) !== 'failed'
  return judge(gone ?? { metadata: { name: podName(view.name, worker) } }, worker, { ...view, isGone })
}

const failureOf = (pod: Pod, worker: number, view: Gang & Pick<View, 'now'>): PodFailure | undefined => {
  const outcome = outcomeOf(pod)
  const hasFailed = outcome === 'failed' || (outcome === 'active' && isStopping(pod))
  return hasFailed ? judge(pod, worker, view) : undefined
}

function judge(pod: Pod, worker: number, view: Gang & Pick<View, 'now'> & { isGone?: boolean }): PodFailure {
  const { finishedAt, ...end } = endOf(pod, { isGone: view.isGone === true, isProbed: isProbed(view) })
  const { nodeName } = pod.spec ?? {}
  // The exit codes of EXIT are the worker's words, and mean nothing from another container.
  const own = end.byItself && end.container === undefined ? end.exitCode : undefined
  const exit = Object.values(EXIT).find(({ code }) => code === own)
  return {
    ...end,
    worker,
    podName: pod.metadata.name,
    conditions: pod.status?.conditions,
    ...(nodeName === undefined ? {} : { nodeName }),
    permanent: exit?.permanent ?? false,
    attributedTo: own === undefined ? 'self' : attribution(own, terminationRecord(pod)?.failure),
    at: end.act === 'others' ? (stopTime(pod) ?? view.now) : (instant(finishedAt) ?? view.now),
  }
}

/** deletionTimestamp is the end of the grace period. */
function stopTime({ metadata }: Pod): number | undefined {
  const graceEnd = instant(metadata.deletionTimestamp)
  return graceEnd === undefined ? undefined : graceEnd - (metadata.deletionGracePeriodSeconds ?? 0) * 1000
}

/** Whether a probe of the template lets the kubelet kill the worker. */
function isProbed({ spec }: Pick<View, 'spec'>): boolean {
  const { livenessProbe, startupProbe } = workerOf(spec.workers)
  return livenessProbe !== undefined || startupProbe !== undefined
}

function attribution(exitCode: number, record: Failure | undefined): PodFailure['attributedTo'] {
  if (record !== undefined && PEER_REASONS.has(record.reason)) return 'peer'
  if (record === undefined && PEER_CODES.has(exitCode)) return 'peer'
  return exitCode === EXIT.terminated.code ? 'signal' : 'self'
}

// The workers of one attempt together: how many are ready, who succeeded, and who failed first.

import { EXIT, type Failure, LABEL } from '../../crds/contract.ts'
import { ranksPerWorker } from '../../crds/ranks.ts'
import type { WorkersStatus } from '../../crds/status.ts'
import {
  isDisruption,
  isReady,
  isStopping,
  outcomeOf,
  type Terminated,
  terminationRecord,
  workerEnd,
} from '../objects/pod-state.ts'
import { type Pod, type PodCondition, podName } from '../objects/wire.ts'
import { instant } from './time.ts'
import type { View } from './view.ts'

/** How one pod failed. */
export type PodFailure = {
  /** The worker's number. */
  worker: number
  podName: string
  nodeName?: string | undefined
  exitCode?: number
  /** One word: a key of EXIT, or a reason of Kubernetes. */
  reason: string
  message: string
  permanent: boolean
  /** Somebody deleted the pod. It did not fail by itself. */
  deleted: boolean
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
const LOG_LENGTH = 900
const GONE = 'the pod was deleted'
const SIGKILL = 137
const SIGNALS: Record<number, string> = {
  132: 'SIGILL',
  134: 'SIGABRT',
  135: 'SIGBUS',
  136: 'SIGFPE',
  137: 'SIGKILL',
  139: 'SIGSEGV',
}
const PEER_REASONS: ReadonlySet<string> = new Set(['peerLost', 'rendezvous'] satisfies (keyof typeof EXIT)[])
const PEER_CODES: ReadonlySet<number> = new Set([EXIT.peerLost.code, EXIT.rendezvous.code])

type Gang = Pick<View, 'gang' | 'gonePods' | 'attempt' | 'uid' | 'spec'>

/** The failure that ended this attempt: the first one that no other failure explains. */
export function firstFailure(view: Gang & Pick<View, 'name' | 'created' | 'now'>): PodFailure | undefined {
  const { gang, created, now } = view
  const failures = gang.flatMap((pod, worker) => {
    if (!created && (outcomeOf(pod) !== 'failed' || isStopping(pod))) return []
    const failure = pod === undefined ? failureOfMissing(worker, view) : failureOf(pod, worker, now)
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
  const { name, now } = view
  const gone = goneFrom(view, worker)
  if (outcomeOf(gone) === 'succeeded') return undefined
  if (gone !== undefined) return failureOf(gone, worker, now) ?? deleted(gone, worker, now)
  return {
    worker,
    podName: podName(name, worker),
    reason: 'PodDeleted',
    message: GONE,
    permanent: false,
    deleted: true,
    attributedTo: 'self',
    at: now,
  }
}

function failureOf(pod: Pod, worker: number, now: number): PodFailure | undefined {
  const outcome = outcomeOf(pod)
  if (outcome === 'succeeded') return undefined
  const end = workerEnd(pod)
  // Deleting or evicting a pod stops its worker. The deletion is then the cause, and the exit code
  // follows from it.
  const isStopped = end === undefined || end.exitCode === EXIT.terminated.code || end.exitCode === SIGKILL
  if (isStopping(pod) && isStopped) return deleted(pod, worker, now)
  return outcome === 'failed' ? failed(pod, worker, now) : undefined
}

const identity = (pod: Pod, worker: number) => ({
  worker,
  podName: pod.metadata.name,
  conditions: pod.status?.conditions,
  ...(pod.spec?.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
})

function deleted(pod: Pod, worker: number, now: number): PodFailure {
  const disruption = pod.status?.conditions?.find(isDisruption)
  const end = workerEnd(pod)
  // deletionTimestamp is the end of the grace period.
  const graceEnd = instant(pod.metadata.deletionTimestamp)
  const graceMilliseconds = (pod.metadata.deletionGracePeriodSeconds ?? 0) * 1000
  return {
    ...identity(pod, worker),
    ...(end === undefined ? {} : { exitCode: end.exitCode }),
    reason: word(disruption?.reason, 'PodDeleted'),
    message: disruption?.message ?? GONE,
    permanent: false,
    deleted: true,
    attributedTo: 'self',
    at: graceEnd === undefined ? now : graceEnd - graceMilliseconds,
  }
}

function failed(pod: Pod, worker: number, now: number): PodFailure {
  const end = workerEnd(pod) ?? anyFailedContainer(pod)
  const exit = Object.entries(EXIT).find(([, { code }]) => code === end?.exitCode)
  return {
    ...identity(pod, worker),
    ...(end === undefined ? {} : { exitCode: end.exitCode }),
    ...explain(pod, end, exit),
    permanent: exit?.[1].permanent ?? false,
    deleted: false,
    attributedTo: attribution(end?.exitCode, terminationRecord(pod)?.failure),
    at: instant(end?.finishedAt) ?? now,
  }
}

/**
 * The reason of Kubernetes if it killed the pod, otherwise the worker's own record, otherwise the
 * meaning of the exit code.
 */
function explain(
  pod: Pod,
  end: Terminated | undefined,
  exit: [string, { meaning: string }] | undefined,
): { reason: string; message: string } {
  const { reason, message } = pod.status ?? {}
  if (reason !== undefined && reason !== '') return { reason: word(reason, 'PodFailed'), message: message ?? reason }
  if (end?.reason === 'OOMKilled')
    return { reason: 'OOMKilled', message: 'the container used more memory than its limit' }
  const record = terminationRecord(pod)?.failure
  if (record !== undefined) return { reason: word(record.reason, 'WorkerFailed'), message: withOp(record) }
  const log = lastLogLines(end?.message ?? '')
  const signal = SIGNALS[end?.exitCode ?? 0]
  if (signal !== undefined)
    return { reason: signal, message: `killed by ${signal}${log === '' ? '' : `; its log ends: ${log}`}` }
  if (exit !== undefined) return { reason: exit[0], message: log === '' ? exit[1].meaning : log }
  return {
    reason: word(end?.reason, 'WorkerFailed'),
    message: log === '' ? 'the container failed and left no message' : log,
  }
}

/** The end of a log. Workers write lines of JSON, of which only the message is kept. */
function lastLogLines(text: string): string {
  const lines = text
    .trim()
    .split('\n')
    .map(line => /^\{.*"msg":"((?:[^"\\]|\\.)*)"/.exec(line)?.[1] ?? line)
  return lines.join('\n').slice(-LOG_LENGTH).toWellFormed()
}

const withOp = ({ op, message }: Failure): string => (op === undefined ? message : `${op}: ${message}`)

function attribution(exitCode: number | undefined, record: Failure | undefined): PodFailure['attributedTo'] {
  if (record !== undefined && PEER_REASONS.has(record.reason)) return 'peer'
  if (record === undefined && exitCode !== undefined && PEER_CODES.has(exitCode)) return 'peer'
  return exitCode === EXIT.terminated.code ? 'signal' : 'self'
}

function anyFailedContainer(pod: Pod): Terminated | undefined {
  const all = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]
  return all.map(({ state }) => state?.terminated).find(end => end !== undefined && end.exitCode !== 0)
}

/** The text if it matches the pattern of a condition's reason, otherwise the replacement. */
const word = (text: string | undefined, otherwise: string): string =>
  text !== undefined && /^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(text) ? text : otherwise

// What the pods of one attempt say: who succeeded, who failed, and who failed first. Pure.

import { CONTAINER, EXIT, type Failure, LABEL, TerminationRecord } from '../../crds/contract.ts'
import { type ContainerStatus, type Pod, type PodCondition, podName } from '../objects/wire.ts'

export type Outcome = 'missing' | 'active' | 'succeeded' | 'failed'
export type Terminated = NonNullable<NonNullable<ContainerStatus['state']>['terminated']>

/** One pod's failure, and how far it is to blame. */
export type Blow = {
  rank: number
  podName: string
  nodeName?: string | undefined
  exitCode?: number
  /** One word: a key of EXIT, or Kubernetes' own. */
  reason: string
  message: string
  permanent: boolean
  /** By somebody else: it did not fail by itself. */
  deleted: boolean
  /** It was too late; nothing ended. */
  deadline?: true
  /** Of the pod. */
  conditions?: readonly PodCondition[] | undefined
  /** 0: failed by itself; 1: was told to stop; 2: says that another rank is to blame. */
  distance: 0 | 1 | 2
  /** Milliseconds since 1970, by its node's clock. */
  at: number
}

const LOG_LENGTH = 900
const GONE = 'the pod was deleted'
const SIGNALS: Record<number, string> = {
  132: 'SIGILL',
  134: 'SIGABRT',
  135: 'SIGBUS',
  136: 'SIGFPE',
  137: 'SIGKILL',
  139: 'SIGSEGV',
}
const BLAMES_ANOTHER: ReadonlySet<number> = new Set([EXIT.peerLost.code, EXIT.rendezvous.code])

/** A worker's last words, undefined where it left none or they are not a record (then they are the end of its log). */
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

export function workerEnd(pod: Pod | undefined): Terminated | undefined {
  return pod?.status?.containerStatuses?.find(container => container.name === CONTAINER)?.state?.terminated
}

/** By the worker container, so that a sidecar that runs on or fails does not matter. */
export function outcomeOf(pod: Pod | undefined): Outcome {
  if (pod === undefined) return 'missing'
  const end = workerEnd(pod)
  if (end !== undefined) return end.exitCode === 0 ? 'succeeded' : 'failed'
  if (pod.status?.phase === 'Succeeded') return 'succeeded'
  return pod.status?.phase === 'Failed' ? 'failed' : 'active'
}

/** Nothing of it runs any more. The kubelet reports the end of containers a moment before it sets the phase. */
export function isOver({ status: { phase, containerStatuses = [] } = {} }: Pod): boolean {
  if (phase === 'Succeeded' || phase === 'Failed') return true
  return containerStatuses.length > 0 && containerStatuses.every(({ state }) => state?.terminated !== undefined)
}

/** The pod was taken away, by Kubernetes (eviction, preemption, drain) or by Kueue (preemption, its Workload deleted). */
export const isDisruption = ({ type, status }: PodCondition): boolean =>
  (type === 'DisruptionTarget' || type === 'TerminationTarget') && status === 'True'

export const isStopping = (pod: Pod | undefined): boolean => pod?.metadata.deletionTimestamp !== undefined

export const isReady = (pod: Pod | undefined): boolean =>
  !isStopping(pod) &&
  outcomeOf(pod) === 'active' &&
  (pod?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false)

type Gang = {
  name: string
  gang: readonly (Pod | undefined)[]
  /** All of them were created: one that is missing or told to stop was deleted by somebody else. */
  created: boolean
  /** Pods that are gone, as they were last seen. */
  ghosts?: readonly Pod[] | undefined
  attempt: number
  uid: string
  now: number
}

/** The failure that ended this attempt: whoever blames nobody comes before its victims, then whoever failed first. */
export function firstBlow(view: Gang): Blow | undefined {
  const { gang, created, now } = view
  const blows = gang.flatMap((pod, rank) => {
    if (!created && (outcomeOf(pod) !== 'failed' || isStopping(pod))) return []
    const blow = pod === undefined ? gone(rank, view) : blowOf(pod, rank, now)
    return blow === undefined ? [] : [blow]
  })
  return blows.toSorted((a, b) => a.distance - b.distance || a.at - b.at || a.rank - b.rank)[0]
}

type Haunted = Pick<Gang, 'ghosts' | 'attempt' | 'uid'>

/** What is left in memory of a rank's pod of this attempt. */
const ghostOf = (rank: number, { ghosts = [], attempt, uid }: Haunted): Pod | undefined =>
  ghosts.find(
    ({ metadata: { labels } }) =>
      labels?.[LABEL.jobUid] === uid &&
      labels[LABEL.attempt] === String(attempt) &&
      labels[LABEL.rank] === String(rank),
  )

/** A rank that has done all its steps has, also when its pod is gone. */
export const hasSucceeded = (rank: number, view: Haunted & Pick<Gang, 'gang'>): boolean =>
  outcomeOf(view.gang[rank] ?? ghostOf(rank, view)) === 'succeeded'

/** It may have been told to stop, or have failed, and be gone before anyone looked. */
function gone(rank: number, view: Gang): Blow | undefined {
  const { name, now } = view
  const ghost = ghostOf(rank, view)
  if (outcomeOf(ghost) === 'succeeded') return undefined
  if (ghost !== undefined) return blowOf(ghost, rank, now) ?? deleted(ghost, rank, now)
  const reason = 'PodDeleted'
  const pod = podName(name, rank)
  return { rank, podName: pod, reason, message: GONE, permanent: false, deleted: true, distance: 0, at: now }
}

function blowOf(pod: Pod, rank: number, now: number): Blow | undefined {
  const outcome = outcomeOf(pod)
  if (outcome === 'succeeded') return undefined
  const end = workerEnd(pod)
  // Told to stop because the pod is deleted or evicted: that is the cause, not the exit code that follows from it.
  const obeyed = end === undefined || end.exitCode === EXIT.terminated.code || end.exitCode === 137
  if (isStopping(pod) && obeyed) return deleted(pod, rank, now)
  return outcome === 'failed' ? failed(pod, rank, now) : undefined
}

const place = (pod: Pod, rank: number) => ({
  rank,
  podName: pod.metadata.name,
  conditions: pod.status?.conditions,
  ...(pod.spec?.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
})

function deleted(pod: Pod, rank: number, now: number): Blow {
  const disruption = pod.status?.conditions?.find(isDisruption)
  const end = workerEnd(pod)
  // deletionTimestamp is when the grace period is over.
  const over = Date.parse(pod.metadata.deletionTimestamp ?? '')
  const at = over - (pod.metadata.deletionGracePeriodSeconds ?? 0) * 1000
  return {
    ...place(pod, rank),
    ...(end === undefined ? {} : { exitCode: end.exitCode }),
    reason: word(disruption?.reason, 'PodDeleted'),
    message: disruption?.message ?? GONE,
    permanent: false,
    deleted: true,
    distance: 0,
    at: Number.isNaN(at) ? now : at,
  }
}

function failed(pod: Pod, rank: number, now: number): Blow {
  const end = workerEnd(pod) ?? anyEnd(pod)
  const at = Date.parse(end?.finishedAt ?? '')
  const exit = Object.entries(EXIT).find(([, { code }]) => code === end?.exitCode)
  return {
    ...place(pod, rank),
    ...(end === undefined ? {} : { exitCode: end.exitCode }),
    ...explain(pod, end, exit),
    permanent: exit?.[1].permanent ?? false,
    deleted: false,
    distance: distance(end?.exitCode, terminationRecord(pod)?.failure),
    at: Number.isNaN(at) ? now : at,
  }
}

/** Kubernetes' reason where it killed the pod, else the worker's own words, else what the exit code means. */
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
  if (record !== undefined) return { reason: word(record.reason, 'WorkerFailed'), message: where(record) }
  const words = logged(end?.message ?? '')
  const signal = SIGNALS[end?.exitCode ?? 0]
  if (signal !== undefined)
    return { reason: signal, message: `killed by ${signal}${words === '' ? '' : `; its log ends: ${words}`}` }
  if (exit !== undefined) return { reason: exit[0], message: words === '' ? exit[1].meaning : words }
  return {
    reason: word(end?.reason, 'WorkerFailed'),
    message: words === '' ? 'the container failed and left no message' : words,
  }
}

/** The end of a log: of lines in JSON, as workers write them, what they say. */
function logged(text: string): string {
  const lines = text
    .trim()
    .split('\n')
    .map(line => /^\{.*"msg":"((?:[^"\\]|\\.)*)"/.exec(line)?.[1] ?? line)
  return lines.join('\n').slice(-LOG_LENGTH).toWellFormed()
}

const where = ({ op, message }: Failure): string => (op === undefined ? message : `${op}: ${message}`)

const distance = (exitCode: number | undefined, record: Failure | undefined): Blow['distance'] => {
  if (record?.reason === 'peerLost' || record?.reason === 'rendezvous') return 2
  if (record === undefined && exitCode !== undefined && BLAMES_ANOTHER.has(exitCode)) return 2
  return exitCode === EXIT.terminated.code ? 1 : 0
}

function anyEnd(pod: Pod): Terminated | undefined {
  const all = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]
  return all.map(({ state }) => state?.terminated).find(end => end !== undefined && end.exitCode !== 0)
}

/** A condition's reason has a pattern; what does not fit is replaced. */
const word = (text: string | undefined, otherwise: string): string =>
  text !== undefined && /^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(text) ? text : otherwise

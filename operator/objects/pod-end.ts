// How a pod ended: by whose act, in which container, and whether training failed. One table answers
// for everything that a pod can say, and its first row that fits decides.

import { CONTAINER, EXIT, type Failure } from '../../crds/contract.ts'
import { isDisruption, isSidecar, isStopping, type Terminated, terminationRecord, workerEnd } from './pod-state.ts'
import type { Pod, PodCondition } from './wire.ts'

/**
 * Whose act the end was.
 * `worker`: the worker's own process ended.
 * `template`: something that the job's pod template has beside the worker ended the pod.
 * `node`: the pod's node refused, evicted or lost the pod.
 * `others`: somebody told the pod to stop.
 */
export type Act = 'worker' | 'template' | 'node' | 'others'

export type End = {
  act: Act
  /** Whether a restart after this end counts towards failurePolicy.maxRestarts. */
  counts: boolean
  /** Whether the container ended by itself, so that rules may be asked about its exit code. */
  byItself: boolean
  /** Continues a sentence that begins with the pod's name. */
  verb: string
  /** The container that ended, if it is not the worker. */
  container?: string
  exitCode?: number
  /** When the container ended (RFC 3339). */
  finishedAt?: string
  /** One word: a key of EXIT, a reason of Kubernetes, or a key of FAILURES. */
  reason: string
  message: string
}

/** Everything that the rows of the table look at. */
type Facts = {
  pod: Pod
  /** How the worker container ended. */
  worker: Terminated | undefined
  /** The first init container that failed, while the worker never began. */
  init: { name: string; end: Terminated } | undefined
  disruption: PodCondition | undefined
  /** The reason and message of the pod itself, which the kubelet gives if it ended the pod. */
  reason: string
  message: string
} & Circumstances
type Circumstances = {
  /** Whether the pod vanished while it still ran. */
  isGone?: boolean
  /** Whether the job's template has a livenessProbe or a startupProbe for the worker. */
  isProbed?: boolean
}
type Words = { reason: string; message: string }
type Row = Pick<End, 'act' | 'counts' | 'byItself' | 'verb'> & {
  fits: (facts: Facts) => boolean
  words: (facts: Facts) => Words
}

const LOG_LENGTH = 900
const SIGKILL = 137
const SIGNALS: Record<number, string> = {
  132: 'SIGILL',
  134: 'SIGABRT',
  135: 'SIGBUS',
  136: 'SIGFPE',
  137: 'SIGKILL',
  139: 'SIGSEGV',
}

/** Reasons of a kubelet that ends or refuses a pod for the sake, or for the state, of its node. */
const NODE_REASONS: ReadonlySet<string> = new Set([
  'UnexpectedAdmissionError',
  'NodeAffinity',
  'NodeName',
  'NodePorts',
  'NodeLost',
  'NodeShutdown',
  'Preempting',
  'Shutdown',
  'TaintToleration',
  'Terminated',
  'TopologyAffinityError',
])
/** Reasons of a kubelet that refuses what the template asks for. Every node would refuse it. */
const TEMPLATE_REASONS: ReadonlySet<string> = new Set([
  'AppArmor',
  'Forbidden',
  'InitContainerRestartForbidden',
  'PodFeatureUnsupported',
  'PodOSNotSupported',
  'PodOSSelectorNodeLabelDoesNotMatch',
  'SysctlForbidden',
])
const OUT_OF = /^OutOf/
const PRESSURE = /The node (was low on|had condition)/

/** Whether the worker has no exit code of its own: it never ended, or was stopped or killed. */
function wasEnded({ worker, pod }: Facts): boolean {
  if (worker === undefined || isLost(worker)) return true
  if (worker.reason === 'OOMKilled') return false
  if (worker.exitCode === EXIT.terminated.code || worker.exitCode === SIGKILL) return true
  return !isPermanent(worker.exitCode) && endedAfterStop(pod, worker)
}

/** A worker that was told to stop may also fail on the way, for example to write a checkpoint. */
function endedAfterStop({ metadata }: Pod, { finishedAt }: Terminated): boolean {
  // deletionTimestamp is the end of the grace period.
  const stop = Date.parse(metadata.deletionTimestamp ?? '') - (metadata.deletionGracePeriodSeconds ?? 0) * 1000
  return Date.parse(finishedAt ?? '') >= stop
}

/** Whether the kubelet found no trace of the container, as after a reboot of the node. */
const isLost = ({ reason, exitCode }: Terminated): boolean =>
  reason === 'ContainerStatusUnknown' || (reason === 'Unknown' && exitCode === 255)

const isPermanent = (code: number): boolean => Object.values(EXIT).some(exit => exit.code === code && exit.permanent)

/** Whether a container of the pod has ever run. */
const hasBegun = ({ status }: Pod): boolean =>
  [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])].some(
    ({ state }) => state?.running !== undefined || state?.terminated !== undefined,
  )

const ofPod = ({ reason, message }: Facts): Words => ({
  reason: word(reason, 'PodFailed'),
  message: message || reason || 'the pod failed and nothing says why',
})
const ofDisruption = (facts: Facts): Words =>
  facts.reason === ''
    ? {
        reason: word(facts.disruption?.reason, 'PodDeleted'),
        message: facts.disruption?.message ?? 'the pod was deleted',
      }
    : ofPod(facts)

/** For a pod that no row fits: its worker failed. */
const OWN: Row = { act: 'worker', counts: true, byItself: true, verb: 'failed', fits: () => true, words: ofWorker }

/** The first row that fits decides. */
const TABLE: readonly Row[] = [
  // Somebody deleted or evicted the pod. How its worker then ended follows from that.
  {
    act: 'others',
    counts: false,
    byItself: false,
    verb: 'was deleted',
    fits: facts => (facts.isGone === true || isStopping(facts.pod)) && wasEnded(facts),
    words: facts => ofDisruption({ ...facts, reason: '' }),
  },
  // Time is up by the template's own limit.
  {
    act: 'template',
    counts: true,
    byItself: false,
    verb: 'was ended',
    fits: ({ reason }) => reason === 'DeadlineExceeded',
    words: ({ reason }) => ({
      reason,
      message: 'the pod ran for as long as activeDeadlineSeconds in spec.workers.template allows',
    }),
  },
  {
    act: 'template',
    counts: true,
    byItself: false,
    verb: 'was refused by its node',
    fits: ({ reason }) => TEMPLATE_REASONS.has(reason),
    words: ofPod,
  },
  // The kubelet refuses a pod before it starts a container, or when the kubelet starts again.
  {
    act: 'node',
    counts: false,
    byItself: false,
    verb: 'was refused by its node',
    fits: facts =>
      facts.reason !== '' &&
      (NODE_REASONS.has(facts.reason) || OUT_OF.test(facts.reason) || !hasBegun(facts.pod)) &&
      facts.disruption === undefined &&
      wasEnded(facts),
    words: ofPod,
  },
  // The kubelet evicted the pod for its node, or the node is gone.
  {
    act: 'node',
    counts: false,
    byItself: false,
    verb: 'was taken away',
    fits: facts => (facts.disruption !== undefined || PRESSURE.test(facts.message)) && wasEnded(facts),
    words: ofDisruption,
  },
  // Without the condition DisruptionTarget, the pod itself used more than its limits.
  {
    act: 'worker',
    counts: true,
    byItself: false,
    verb: 'was evicted',
    fits: ({ reason }) => reason === 'Evicted',
    words: ofPod,
  },
  {
    act: 'node',
    counts: false,
    byItself: false,
    verb: 'was lost by its node',
    fits: ({ worker }) => worker !== undefined && isLost(worker),
    words: ({ worker }) => ({
      reason: 'ContainerStatusUnknown',
      message: worker?.message || 'the node found no trace of the container, as after a reboot',
    }),
  },
  {
    act: 'template',
    counts: true,
    byItself: true,
    verb: 'failed',
    fits: ({ worker, init }) => worker === undefined && init !== undefined,
    words: ({ init }) => ({
      reason: 'InitContainerFailed',
      message: `init container ${init?.name} failed${init?.end.reason === 'OOMKilled' ? ' (OOMKilled)' : ''}${logOf(init?.end)}`,
    }),
  },
  // Nobody deleted the pod, so only a probe makes the kubelet stop the worker.
  {
    act: 'template',
    counts: true,
    byItself: true,
    verb: 'was stopped',
    fits: ({ worker, isProbed }) =>
      isProbed === true &&
      worker?.reason !== 'OOMKilled' &&
      (worker?.exitCode === EXIT.terminated.code || worker?.exitCode === SIGKILL),
    words: () => ({
      reason: 'ProbeFailed',
      message:
        'the worker was stopped although nobody deleted its pod, as the kubelet does when livenessProbe or startupProbe of spec.workers.template fails',
    }),
  },
]

/** How a pod ended that failed, was told to stop, or vanished. */
export function endOf(pod: Pod, circumstances: Circumstances = {}): End {
  const { conditions, reason = '', message = '' } = pod.status ?? {}
  const worker = workerEnd(pod)
  const init = failedInit(pod)
  const facts: Facts = {
    pod,
    worker,
    init,
    disruption: conditions?.find(isDisruption),
    reason,
    message,
    ...circumstances,
  }
  const row = TABLE.find(({ fits }) => fits(facts)) ?? OWN
  const { act, counts, byItself, verb } = row
  const ended = worker ?? (row.act === 'template' && byItself ? init?.end : undefined)
  return {
    act,
    // A container may have failed on the way out of a pod that was taken away.
    counts: counts && facts.disruption === undefined,
    byItself,
    verb,
    ...(worker === undefined && ended !== undefined && init !== undefined ? { container: init.name } : {}),
    ...(ended === undefined ? {} : { exitCode: ended.exitCode }),
    ...(ended?.finishedAt === undefined ? {} : { finishedAt: ended.finishedAt }),
    ...row.words(facts),
  }
}

/** The container of an end, whose log tells more. */
export const containerOf = ({ container = CONTAINER }: Pick<End, 'container'>): string => container

/** A sidecar that ends is started again, so only the others can fail a pod. */
function failedInit(pod: Pod): Facts['init'] {
  for (const { name, state } of pod.status?.initContainerStatuses ?? []) {
    const end = state?.terminated
    if (end !== undefined && end.exitCode !== 0 && !isSidecar(pod, name)) return { name, end }
  }
  return undefined
}

/**
 * The worker's own record, otherwise the meaning of its exit code. A pod that failed without a word
 * of its worker has the kubelet's.
 */
function ofWorker(facts: Facts): Words {
  const { pod, worker } = facts
  if (worker === undefined || (facts.reason !== '' && wasEnded(facts))) return ofPod(facts)
  if (worker.reason === 'OOMKilled')
    return { reason: 'OOMKilled', message: 'the container used more memory than its limit' }
  const record = terminationRecord(pod)?.failure
  if (record !== undefined) return { reason: word(record.reason, 'WorkerFailed'), message: withOp(record) }
  const log = lastLogLines(worker.message ?? '')
  const signal = SIGNALS[worker.exitCode]
  if (signal !== undefined) return { reason: signal, message: `killed by ${signal}${logOf(worker)}` }
  const exit = Object.entries(EXIT).find(([, { code }]) => code === worker.exitCode)
  if (exit !== undefined) return { reason: exit[0], message: log === '' ? exit[1].meaning : log }
  return {
    reason: word(worker.reason, 'WorkerFailed'),
    message: log === '' ? 'the container failed and left no message' : log,
  }
}

function logOf(end: Terminated | undefined): string {
  const log = lastLogLines(end?.message ?? '')
  return log === '' ? '' : `; its log ends: ${log}`
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

/** The text if it matches the pattern of a condition's reason, otherwise the replacement. */
const word = (text: string | undefined, otherwise: string): string =>
  text !== undefined && /^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(text) ? text : otherwise

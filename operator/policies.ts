// What to do about a job: an ordered list of small checks. The first that has an answer decides; its reason and message
// are what the user reads. Pure.

import type { FailureStatus, State } from '../crds/status.ts'
import { type Blow, firstBlow, isOver, isStopping, outcomeOf } from './gang.ts'
import { clip, type Pod } from './objects.ts'
import type { Wanted } from './owned.ts'
import { waitOf } from './providers.ts'
import { pod as podOf } from './resources.ts'
import { countWorkers, isOwnedBy, type View } from './view.ts'

export type Action = { kind: 'create' | 'apply'; object: Wanted } | { kind: 'delete'; pod: Pod; because: string }

/** Recorded in the status; null removes the field. */
export type Changes = {
  attempt?: number
  restarts?: number
  startTime?: null
  completionTime?: string
  nextRestartTime?: string | null
  lastFailure?: FailureStatus
}
export type Decision = {
  state: State
  reason: string
  message: string
  actions?: Action[]
  changes?: Changes
  /** Milliseconds since 1970: look again then, even if nothing happens. */
  requeueAt?: number
  /** The status is not touched. */
  frozen?: true
}
export type Policy = (view: View) => Decision | undefined

/** How long a worker that blames another is not believed to be the first: its killer's end may be reported after it. */
const HEARSAY_MILLISECONDS = 5000
const PULL_REASONS: ReadonlySet<string> = new Set([
  'ImagePullBackOff',
  'ErrImagePull',
  'InvalidImageName',
  'ErrImageNeverPull',
  'RegistryUnavailable',
])
const UNPLACED_REASONS: ReadonlySet<string> = new Set(['Unschedulable', 'SchedulingGated'])
const CONFIG_REASONS: ReadonlySet<string> = new Set(['CreateContainerConfigError', 'CreateContainerError'])

/** RFC 3339 in whole seconds, as Kubernetes has it; rounded up, so that what waits for it is never early. */
export const timestamp = (milliseconds: number): string =>
  new Date(Math.ceil(milliseconds / 1000) * 1000).toISOString().replace('.000Z', 'Z')

const deletions = (pods: readonly (Pod | undefined)[], because: string): Action[] =>
  pods.flatMap(pod => (pod === undefined || isStopping(pod) ? [] : [{ kind: 'delete' as const, pod, because }]))

const ours = (view: View): Pod[] =>
  [...view.gang, ...view.others].filter(pod => pod !== undefined).filter(pod => isOwnedBy(pod, view.uid))

/** Complete and Failed never change again; finished pods stay for their logs. */
const finished: Policy = view => {
  const { state, reason = '', message = '' } = view.status
  const terminal = view.status.conditions?.some(
    ({ type, status }) => (type === 'Complete' || type === 'Failed') && status === 'True',
  )
  if (!terminal || state === undefined) return undefined
  const running = ours(view).filter(pod => !isOver(pod))
  return { state, reason, message, frozen: true, actions: deletions(running, 'the job is finished') }
}

const succeeded: Policy = view => {
  if (!view.gang.every(pod => outcomeOf(pod) === 'succeeded')) return undefined
  const message = `all ${view.gang.length} workers did ${view.spec.training.steps} steps`
  return {
    state: 'Complete',
    reason: 'AllWorkersSucceeded',
    message,
    changes: { completionTime: timestamp(view.now), nextRestartTime: null },
  }
}

/** The workers checkpoint when they are told to stop; the next attempt gets a number of its own. */
const suspended: Policy = view => {
  if (!view.spec.suspend) return undefined
  const started = view.status.state !== 'Suspended' && (view.created || view.gang.some(pod => pod !== undefined))
  const left = ours(view)
  const changes: Changes = { startTime: null, nextRestartTime: null, ...(started ? { attempt: view.attempt + 1 } : {}) }
  const [reason, message] =
    left.length > 0
      ? ['Stopping', 'waiting for the workers to stop']
      : ['Suspended', 'spec.suspend is true: no pods until it is false']
  return { state: 'Suspended', reason, message, changes, actions: deletions(left, 'the job is suspended') }
}

/**
 * The first failure ends the attempt. It goes on record before the pods, which are the evidence, are deleted: that
 * follows when this status is observed, as they then are pods of an earlier attempt.
 */
const failed: Policy = view => {
  const blow = firstBlow(view)
  if (blow === undefined) return undefined
  const age = view.now - blow.at
  const over = view.gang.every(pod => outcomeOf(pod) !== 'active')
  if (blow.distance === 2 && !over && age > -HEARSAY_MILLISECONDS && age < HEARSAY_MILLISECONDS)
    return { ...asBefore(view, 'Starting'), requeueAt: blow.at + HEARSAY_MILLISECONDS }
  const { maxRestarts, backoff } = view.spec.failurePolicy
  const restarts = view.status.restarts ?? 0
  const lastFailure = recordOf(blow, view.attempt)
  const message = sentence(blow, view.attempt)
  const end = { completionTime: timestamp(view.now), lastFailure, nextRestartTime: null }
  if (blow.permanent)
    return {
      state: 'Failed',
      reason: 'PermanentFailure',
      message: `${message}; a restart would not help`,
      changes: end,
    }
  if (restarts >= maxRestarts)
    return {
      state: 'Failed',
      reason: 'MaxRestartsExceeded',
      message: `${message}; failurePolicy.maxRestarts is ${maxRestarts}`,
      changes: end,
    }
  const delay = Math.min(backoff.initialSeconds * 2 ** restarts, backoff.maxSeconds) * 1000
  const nextRestartTime = timestamp(view.now + delay)
  const changes = { attempt: view.attempt + 1, restarts: restarts + 1, nextRestartTime, lastFailure }
  const reason = blow.deleted ? 'PodDeleted' : 'WorkerFailed'
  return {
    state: 'Restarting',
    reason,
    message: `${message}; restart ${restarts + 1} of ${maxRestarts}`,
    changes,
    requeueAt: Date.parse(nextRestartTime),
  }
}

/** Pods have the same names in every attempt, so the old ones have to be gone before the first new one is made. */
const stopping: Policy = view => {
  const [first] = view.created ? [] : [...view.others, ...view.gang.filter(pod => pod !== undefined && isStopping(pod))]
  if (first === undefined) return undefined
  const actions = deletions(
    view.others.filter(pod => isOwnedBy(pod, view.uid)),
    'it belongs to an earlier attempt',
  )
  const next = Date.parse(view.status.nextRestartTime ?? '')
  if (view.now < next) return { ...asBefore(view, 'Restarting'), actions, requeueAt: next }
  const node = first.spec?.nodeName === undefined ? '' : ` on node ${first.spec.nodeName}`
  const state = view.status.state === 'Restarting' ? 'Restarting' : 'Pending'
  return {
    state,
    reason: 'WaitingForPods',
    message: `waiting for pod ${first.metadata.name}${node} to be gone`,
    actions,
  }
}

const backingOff: Policy = view => {
  const next = Date.parse(view.status.nextRestartTime ?? '')
  return view.now < next ? { ...asBefore(view, 'Restarting'), requeueAt: next } : undefined
}

const starting: Policy = view => {
  if (view.created) return undefined
  const missing = view.gang.flatMap((pod, rank) => (pod === undefined ? [rank] : []))
  if (missing.length === 0) return undefined
  const actions: Action[] = missing.map(rank => ({ kind: 'create', object: podOf(view, rank) }))
  return {
    state: 'Starting',
    reason: 'WorkersCreated',
    message: `created the workers of attempt ${view.attempt}`,
    actions,
  }
}

const imagePull: Policy = view => {
  for (const pod of view.gang) {
    const containers = [...(pod?.status?.initContainerStatuses ?? []), ...(pod?.status?.containerStatuses ?? [])]
    for (const { image = '', state } of containers) {
      const { reason = '', message = '' } = state?.waiting ?? {}
      const name = pod?.metadata.name ?? ''
      if (PULL_REASONS.has(reason))
        return { state: 'Starting', reason: 'ImagePull', message: cannotPull(name, image, message) }
      if (CONFIG_REASONS.has(reason))
        return { state: 'Starting', reason: 'ContainerConfig', message: `${name}: ${message}` }
    }
  }
  return undefined
}

/** A pod has no node yet, and someone says why: the provider for the gang, else the scheduler for the pod. */
const queued: Policy = view => {
  const unplaced = view.gang.flatMap(pod => {
    const condition = pod?.status?.conditions?.find(({ type, status }) => type === 'PodScheduled' && status === 'False')
    const { reason = '', message = '' } = condition ?? {}
    return UNPLACED_REASONS.has(reason) ? [{ reason, message: `${pod?.metadata.name}: ${message}` }] : []
  })
  const first = unplaced.find(({ reason }) => reason === 'Unschedulable') ?? unplaced[0]
  if (first === undefined) return undefined
  return { state: 'Queued', ...(waitOf(view, view.groups ?? []) ?? first) }
}

/** Running once all were ready together; from then on until the attempt ends, whatever a readiness probe says. */
const running: Policy = view => {
  const { ready, succeeded: done } = countWorkers(view, view.gang.length)
  if (ready + done === view.gang.length)
    return { state: 'Running', reason: 'AllWorkersReady', message: 'all workers are ready' }
  if (view.status.state === 'Running')
    return { state: 'Running', reason: 'WorkersNotReady', message: 'not all workers are ready' }
  return { state: 'Starting', reason: 'WorkersStarting', message: 'waiting for all workers to be ready' }
}

export const policies: readonly Policy[] = [
  finished,
  succeeded,
  suspended,
  failed,
  stopping,
  backingOff,
  starting,
  imagePull,
  queued,
  running,
]

function asBefore({ status }: View, otherwise: State): Decision {
  return { state: status.state ?? otherwise, reason: status.reason ?? otherwise, message: status.message ?? '' }
}

function recordOf({ podName: name, nodeName, exitCode, reason, message }: Blow, attempt: number): FailureStatus {
  return {
    attempt,
    podName: name,
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(exitCode === undefined || exitCode < 0 || exitCode > 255 ? {} : { exitCode }),
    reason,
    message: clip(message),
  }
}

function sentence({ podName: name, exitCode, reason, message, deleted }: Blow, attempt: number): string {
  const code = exitCode === undefined ? '' : `exit code ${exitCode}, `
  return `${name} ${deleted ? 'was deleted' : 'failed'} in attempt ${attempt}: ${code}${reason}: ${clip(message, 512).replace(/\.$/, '')}`
}

/** Between two tries the kubelet wraps the registry's error into "Back-off pulling image"; the text should not flip. */
function cannotPull(pod: string, image: string, message: string): string {
  const inner = /ErrImagePull: (.*)$/s.exec(message)?.[1] ?? (message.startsWith('Back-off') ? '' : message)
  return `${pod} cannot pull image "${image}"${inner === '' ? '' : `: ${inner}`}`
}

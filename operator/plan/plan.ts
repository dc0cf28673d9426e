// The plan for one job: the actions to take and the status to write, as data. Nothing here can act
// or read a clock. `now` is an argument.

import type { State } from '../../crds/status.ts'
import { holds } from '../objects/json.ts'
import { networkPolicy } from '../objects/network-policy.ts'
import { isOrphan, isOwnedBy, metadata as metadataOf, type Wanted } from '../objects/owned.ts'
import { isStopping } from '../objects/pod-state.ts'
import { groupOf } from '../objects/providers.ts'
import type { Job, KubeObject, Pod } from '../objects/wire.ts'
import { budget, service } from '../objects/workers.ts'
import { doubtNote } from './asked/doubts.ts'
import { forcedDeletions, nextForced, workloadDeletions } from './cleanup.ts'
import { nextDeadline } from './deadlines.ts'
import type { Action, Decision, Note } from './decision.ts'
import { countWorkers } from './gang.ts'
import { policies } from './policies.ts'
import { type Report, reportIn } from './report.ts'
import { type Controlled, invalidStatus, nextStatus } from './status.ts'
import { earliest } from './time.ts'
import { isLive, type Leftovers, managedElsewhere, type Observed, readSpec, type View, viewOf } from './view.ts'

/** Carried out in the order of the fields. The event is sent only once the status is written. */
export type Plan = {
  actions: Action[]
  /** The fields of OWNER_PROGRESS to write: rank 0's last report. */
  report?: Report
  /** The fields of OWNER_CONTROLLER to write, absent if the job has this status already. */
  status?: Controlled
  note?: Note
  /** The deadline, in one word, if nothing but the time asks for what cannot be taken back. */
  deadline?: string
  /** A second event, about the spec. */
  doubt?: Note
  /** When to look at the job again even if nothing changes, in milliseconds since 1970. */
  requeueAt?: number
}

const NOTHING: Plan = { actions: [] }

/** Kinds that a gang needs only once its workers run. */
const NEEDED_LATER: ReadonlySet<string> = new Set(['Service', 'PodDisruptionBudget', 'NetworkPolicy'])

export function plan(observed: Observed | Leftovers, now: number): Plan {
  const rest = observed.job === undefined ? NOTHING : planJob(observed, now)
  return { ...rest, actions: [...workloadDeletions(observed), ...rest.actions] }
}

function planJob(observed: Observed, now: number): Plan {
  const { job } = observed
  if (managedElsewhere(job)) return NOTHING
  const isLeaving = job.metadata.deletionTimestamp !== undefined
  const reading = readSpec(job)
  if ('invalid' in reading) return isLeaving ? NOTHING : invalid(job, reading.invalid, now)
  const view = viewOf(observed, reading.spec, now)
  // The garbage collector deletes what a deleted job owns. Only pods that no kubelet ends are left.
  if (isLeaving) return forcedAlone(view)
  for (const policy of policies) {
    const decision = policy(view)
    if (decision !== undefined) return conclude(view, decision)
  }
  throw new Error('the last policy always decides')
}

function forcedAlone(view: View): Plan {
  const actions = forcedDeletions(view)
  const rest = requeue([nextForced(view)])
  return actions.length === 0 ? { actions, ...rest } : { actions, deadline: 'podTerminationTimeoutSeconds', ...rest }
}

/**
 * The part of the plan that creates pods, or undefined. In a burst every gang gets its pods first;
 * the Service, the budget and the status (the most expensive write) follow.
 */
export function podsFirst({ actions }: Plan): Plan | undefined {
  const isPod = (action: Action) => action.kind === 'create' && action.object.kind === 'Pod'
  if (!actions.some(isPod)) return undefined
  return { actions: actions.filter(action => !('object' in action) || !NEEDED_LATER.has(action.object.kind)) }
}

/** The plan as sentences, for logs and tests. */
export function describe({ actions, report, status, requeueAt }: Plan): string[] {
  return [
    ...actions.map(sentenceOf),
    ...(report === undefined ? [] : [`report step ${report.progress.step} of ${report.progress.totalSteps}`]),
    ...(status === undefined ? [] : [`write ${status.state}, ${status.reason}: ${status.message}`]),
    ...(requeueAt === undefined ? [] : [`look again at ${new Date(requeueAt).toISOString()}`]),
  ]
}

function sentenceOf(action: Action): string {
  if (action.kind === 'deleteJob') return `delete the job: ${action.because}`
  if (action.kind === 'deleteWorkload') return `delete Workload ${action.workload.metadata.name}: ${action.because}`
  if (action.kind !== 'delete') return `${action.kind} ${action.object.kind} ${action.object.metadata.name}`
  const how = action.force === undefined ? '' : ' by force'
  return `delete Pod ${action.pod.metadata.name}${how}: ${action.because}`
}

function conclude(view: View, decision: Decision): Plan {
  const status = nextStatus(view, decision)
  const report = decision.frozen ? undefined : reportIn(view, decision.state)
  const note = status === undefined ? undefined : noteOf(view, decision)
  const forced = forcedDeletions(view)
  const deadline = decision.deadline ?? (forced.length > 0 ? 'podTerminationTimeoutSeconds' : undefined)
  const doubt = status === undefined ? undefined : doubtNote(view.job, view.status)
  return {
    actions: [...upkeep(view, decision), ...(decision.actions ?? []), ...forced],
    ...(deadline === undefined ? {} : { deadline }),
    ...(report === undefined ? {} : { report }),
    ...(status === undefined ? {} : { status }),
    ...(note === undefined ? {} : { note }),
    ...(doubt === undefined ? {} : { doubt }),
    ...requeue([decision.requeueAt, nextDeadline(view, decision), nextForced(view)]),
  }
}

function requeue(times: readonly (number | undefined)[]): { requeueAt?: number } {
  const requeueAt = earliest(times)
  return requeueAt === undefined ? {} : { requeueAt }
}

/**
 * Creates and corrects the Service, the budget, the network policy and the scheduler's object of a
 * job with pods. Pods whose owner references somebody removed get them again.
 */
function upkeep(view: View, { state }: Decision): Action[] {
  if (!isLive(state)) return []
  const group = groupOf(view)
  const pairs: [KubeObject | undefined, Wanted | undefined][] = [
    [view.service, service(view)],
    [view.budget, budgetOf(view, state)],
  ]
  if (view.reportReaders !== undefined) pairs.push([view.networkPolicy, networkPolicy(view, view.reportReaders)])
  if (group !== undefined)
    pairs.push([view.groups?.find(({ metadata: { name } }) => name === group.metadata.name), group])
  const kept = pairs.flatMap(([actual, object]): Action[] => {
    if (object === undefined) return []
    // An object of an earlier job of this name blocks the name until the garbage collector deletes
    // it. Until then creating ours fails.
    if (actual === undefined || !isOwnedBy(actual, view.uid)) return [{ kind: 'create', object }]
    const isRight = holds(actual, { metadata: { labels: object.metadata.labels }, spec: object['spec'] })
    return isRight && !isOrphan(actual, view.uid) ? [] : [{ kind: 'apply', object }]
  })
  const orphans = view.gang.filter(pod => pod !== undefined && !isStopping(pod) && isOrphan(pod, view.uid))
  return [...kept, ...orphans.flatMap((pod): Action[] => (pod === undefined ? [] : [adoption(view, pod)]))]
}

/** The uid keeps the pod from being created, if it is gone by then. */
const adoption = (view: View, { metadata: { name, uid } }: Pod): Action => ({
  kind: 'apply',
  object: { apiVersion: 'v1', kind: 'Pod', metadata: { ...metadataOf(view, name), uid } },
})

/**
 * One worker may be evicted at a time, besides those that are not ready. A gang that does not run
 * has nothing to lose, so it needs no budget, and one of an earlier attempt allows every eviction.
 */
function budgetOf(view: View, state: State): Wanted | undefined {
  const runs = state === 'Running' || state === 'Stalled'
  if (!runs && view.budget === undefined) return undefined
  const { active, ready } = countWorkers(view, 0)
  return budget(view, runs ? Math.max(0, view.gang.length - 1 - (active - ready)) : 0)
}

const BAD_STATES: ReadonlySet<string> = new Set(['Stalled', 'Restarting', 'Failed'])
const BAD_REASONS: ReadonlySet<string> = new Set([
  'ImagePull',
  'ContainerConfig',
  'VolumeMount',
  'NameTaken',
  'Unschedulable',
  'TemplateRefused',
  'SchedulingTimeout',
  'AdmissionTimeout',
  'ProgressUnknown',
])

/** The event for a change of the state or of its reason. Other changes have no event. */
function noteOf({ status }: View, { state, reason, message }: Decision): Note | undefined {
  if (status.state === state && status.reason === reason) return undefined
  const bad = BAD_STATES.has(state) || BAD_REASONS.has(reason)
  return { type: bad ? 'Warning' : 'Normal', reason, action: state, note: message }
}

function invalid(job: Job, message: string, now: number): Plan {
  const status = invalidStatus(job, message, now)
  const note: Note = { type: 'Warning', reason: 'InvalidSpec', action: 'Read', note: message }
  return status === undefined ? NOTHING : { actions: [], status, note }
}

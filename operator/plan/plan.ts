// What should happen for one job, as data. It imports nothing that can act and looks at no clock: `now` is an argument.

import type { Wanted } from '../objects/owned.ts'
import { groupOf } from '../objects/providers.ts'
import type { Job, KubeObject } from '../objects/wire.ts'
import { budget, holds, service } from '../objects/workers.ts'
import { forcedDeletions, nextForced } from './cleanup.ts'
import { nextDeadline } from './deadlines.ts'
import { type Action, type Decision, earliest } from './decision.ts'
import { policies } from './policies.ts'
import { type Report, reportIn } from './report.ts'
import { type Controlled, invalidStatus, nextStatus } from './status.ts'
import { isLive, isOwnedBy, managedElsewhere, type Observed, readSpec, type View, viewOf } from './view.ts'

export type Note = { type: 'Normal' | 'Warning'; reason: string; action: string; note: string }

/** Carried out in the order of the fields; the event is only told once the status is written. */
export type Plan = {
  actions: Action[]
  /** To be written by scmoe-progress: rank 0's last words. */
  report?: Report
  /** To be written by scmoe-controller; absent: it says so already. */
  status?: Controlled
  note?: Note
  /** Milliseconds since 1970. */
  requeueAt?: number
}

const NOTHING: Plan = { actions: [] }
const LATER: ReadonlySet<string> = new Set(['Service', 'PodDisruptionBudget'])

export function plan(observed: Observed, now: number): Plan {
  const { job } = observed
  // Its pods, Service and budget belong to it: the garbage collector takes them, as far as nodes are left to say that they ended.
  const leaving = job.metadata.deletionTimestamp !== undefined
  if (managedElsewhere(job)) return NOTHING
  const reading = readSpec(job)
  if ('invalid' in reading) return leaving ? NOTHING : invalid(job, reading.invalid, now)
  const view = viewOf(observed, reading.spec, now)
  if (leaving) return { actions: forcedDeletions(view), ...requeue([nextForced(view)]) }
  for (const policy of policies) {
    const decision = policy(view)
    if (decision !== undefined) return conclude(view, decision)
  }
  throw new Error('the last policy always decides')
}

/**
 * What of it is needed so that a gang can start, where that is a part: other gangs wait for their pods too, and the Service and the budget, which workers
 * need only once they run, and the status, the dearest write, come after theirs.
 */
export function podsFirst({ actions }: Plan): Plan | undefined {
  const isPod = (action: Action) => action.kind === 'create' && action.object.kind === 'Pod'
  if (!actions.some(isPod)) return undefined
  return { actions: actions.filter(action => !('object' in action) || !LATER.has(action.object.kind)) }
}

/** The same as sentences, for logs and tests. */
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
  if (action.kind !== 'delete') return `${action.kind} ${action.object.kind} ${action.object.metadata.name}`
  const how = action.force === undefined ? '' : ' by force'
  return `delete Pod ${action.pod.metadata.name}${how}: ${action.because}`
}

function conclude(view: View, decision: Decision): Plan {
  const status = nextStatus(view, decision)
  const report = decision.frozen ? undefined : reportIn(view, decision.state)
  const note = status === undefined ? undefined : noteOf(view, decision)
  return {
    actions: [...upkeep(view, decision), ...(decision.actions ?? []), ...forcedDeletions(view)],
    ...(report === undefined ? {} : { report }),
    ...(status === undefined ? {} : { status }),
    ...(note === undefined ? {} : { note }),
    ...requeue([decision.requeueAt, nextDeadline(view, decision), nextForced(view)]),
  }
}

function requeue(times: readonly (number | undefined)[]): { requeueAt?: number } {
  const requeueAt = earliest(times)
  return requeueAt === undefined ? {} : { requeueAt }
}

/** A job that has pods also has its Service, its budget and what the scheduler calls its gang, as they should be. */
function upkeep(view: View, { state }: Decision): Action[] {
  if (!isLive(state)) return []
  const group = groupOf(view)
  const pairs: [KubeObject | undefined, Wanted][] = [
    [view.service, service(view)],
    [view.budget, budget(view)],
  ]
  if (group !== undefined)
    pairs.push([view.groups?.find(({ metadata: { name } }) => name === group.metadata.name), group])
  return pairs.flatMap(([actual, object]): Action[] => {
    // One of an earlier job of this name: making ours fails until the garbage collector has taken it.
    if (actual === undefined || !isOwnedBy(actual, view.uid)) return [{ kind: 'create', object }]
    return holds(actual, { metadata: { labels: object.metadata.labels }, spec: object['spec'] })
      ? []
      : [{ kind: 'apply', object }]
  })
}

const BAD_STATES: ReadonlySet<string> = new Set(['Stalled', 'Restarting', 'Failed'])
const BAD_REASONS: ReadonlySet<string> = new Set([
  'ImagePull',
  'ContainerConfig',
  'Unschedulable',
  'SchedulingTimeout',
  'ProgressUnknown',
])

/** Told when the state or its reason changes, not when only numbers do. */
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

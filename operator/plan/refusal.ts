// Decides what it means for a job if the API server refuses to create an object for it.

import { KIND, LABEL } from '../../crds/contract.ts'
import { isOwnedBy, type Wanted } from '../objects/owned.ts'
import { isGroup, type Job, type KubeObject, kindOf } from '../objects/wire.ts'
import type { Note } from './decision.ts'
import { type Controlled, refusedStatus } from './status.ts'
import { readStatus } from './view.ts'

/** The API server's answer to a refused request. */
export type Answer = {
  /** HTTP status. */
  code: number
  /** The kind that the answer is about, in plural. Empty if the server does not know the path. */
  kind: string
  /** The server's own text, with the request before it. */
  message: string
}

/** Why the job cannot go on. The text is for its status. */
export type Refusal = {
  /** One CamelCase word. */
  reason: string
  message: string
  /** The refusal may pass by itself, so the request is repeated with back-off. */
  mayPass?: boolean
}

/** Undefined if the answer says nothing about the object. The request is then repeated as it is. */
export function refusalOf(object: Wanted, { code, kind, message }: Answer): Refusal | undefined {
  const name = `${kindOf(object)} ${object.metadata.name}`
  switch (code) {
    case 404:
      // Without its namespace the job is gone, too. Only a scheduler's kinds can be missing.
      if (kind === 'namespaces' || !isGroup(kindOf(object))) return undefined
      return { reason: 'SchedulerMissing', message: unknownKind(object) }
    case 400:
    case 403:
    case 409:
    case 413:
    case 422:
      return { reason: 'CreateRefused', message: `${name}: ${message}` }
    case 500:
      // An admission webhook that does not answer looks like this, possibly for days.
      return { reason: 'CreateFailed', message: `${name}: ${message}`, mayPass: true }
    default:
      return undefined
  }
}

/** The refusal of a create that is not answered in time. Admission webhooks are the usual cause. */
export const unanswered = (object: Wanted, message: string): Refusal => ({
  reason: 'CreateFailed',
  message: `${kindOf(object)} ${object.metadata.name}: ${message}; an admission webhook may be slow`,
  mayPass: true,
})

const REFUSALS: ReadonlySet<string | undefined> = new Set([
  'CreateRefused',
  'CreateFailed',
  'NameTaken',
  'PodChanged',
  'SchedulerMissing',
])

/** Whether the API server refused what this version of the job needs when it was last tried. */
export function isRefused(job: Job): boolean {
  const { reason, observedGeneration } = readStatus(job)
  return REFUSALS.has(reason) && observedGeneration === job.metadata.generation
}

const unknownKind = ({ apiVersion, kind, metadata: { name } }: Wanted): string =>
  `${kind} ${name}: the API server does not serve ${apiVersion} ${kind}; install the scheduler that scheduling.provider of the chart names, or choose another provider`

/**
 * Judges an object that exists already under the name of a wanted one.
 * `ours`: the operator created the object before, and had not seen it yet.
 * `leaving`: the object belongs to an earlier attempt, or to an earlier job of the same name.
 */
export function judgeExisting(wanted: Wanted, found: KubeObject): 'ours' | 'leaving' | Refusal {
  const labels = wanted.metadata.labels ?? {}
  const foundLabels = found.metadata.labels ?? {}
  const isStopping = found.metadata.deletionTimestamp !== undefined
  const isCurrent = isOwnedBy(found, labels[LABEL.jobUid] ?? '') && foundLabels[LABEL.attempt] === labels[LABEL.attempt]
  if (isCurrent && !isStopping) return 'ours'
  const isJobs = found.metadata.ownerReferences?.some(({ kind }) => kind === KIND) === true
  if (isStopping || (isJobs && foundLabels[LABEL.jobName] === labels[LABEL.jobName])) return 'leaving'
  return {
    reason: 'NameTaken',
    message: `${kindOf(wanted)} ${wanted.metadata.name} exists and is not this job's: delete it, or create the job under another name`,
  }
}

/** Whether the API server refuses new objects because the namespace is about to go. */
export const isNamespaceLeaving = ({ code, message }: Pick<Answer, 'code' | 'message'>): boolean =>
  code === 403 && message.includes('because it is being terminated')

/**
 * Says which label of a new object an admission webhook changed or removed. The operator finds its
 * objects by their labels, so it would not see such an object again. Undefined if all are there.
 */
export function mutation(wanted: Wanted, { metadata: { labels } }: Pick<KubeObject, 'metadata'>): Refusal | undefined {
  const ours = Object.values(LABEL).filter(label => wanted.metadata.labels?.[label] !== undefined)
  const changed = ours.find(label => labels?.[label] !== wanted.metadata.labels?.[label])
  if (changed === undefined) return undefined
  const value = labels?.[changed]
  const what = value === undefined ? `removed the label ${changed}` : `changed the label ${changed} to "${value}"`
  return {
    reason: 'PodChanged',
    message: `${kindOf(wanted)} ${wanted.metadata.name} was deleted again, because an admission webhook ${what}: keep the webhook from these pods`,
  }
}

/** The status and the event that tell the user about a refusal, empty if the status has it. */
export function recordRefusal(job: Job, refusal: Refusal, now: number): { status?: Controlled; note?: Note } {
  const { reason, message } = refusal
  const status = refusedStatus(job, { reason, message }, now)
  return status === undefined ? {} : { status, note: { type: 'Warning', reason, action: 'Create', note: message } }
}

// What a policy answers: the state a job is in and why, what to do about it, what to put on record. Pure.

import type { FailureStatus, State } from '../../crds/status.ts'
import type { Wanted } from '../objects/owned.ts'
import type { Pod } from '../objects/wire.ts'
import { isStopping } from './gang.ts'
import type { View } from './view.ts'

export type Action =
  | { kind: 'create' | 'apply'; object: Wanted }
  /** force: without waiting for its node to say that it has ended. */
  | { kind: 'delete'; pod: Pod; because: string; force?: true }
  | { kind: 'deleteJob'; because: string }

/** Recorded in the status; null removes the field. */
export type Changes = {
  attempt?: number
  restarts?: number
  restartsCountTowardsMax?: number
  consecutiveRestarts?: number
  startTime?: null
  completionTime?: string
  nextRestartTime?: string | null
  nextResizeTime?: string | null
  /** Ranks of the attempt that comes. */
  size?: number
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
  /** Whether steps are being finished, where the state alone does not say it. */
  progressing?: 'False' | 'Unknown'
  /** The status is not touched. */
  frozen?: true
}
export type Policy = (view: View) => Decision | undefined

/** RFC 3339 in whole seconds, as Kubernetes has it; rounded up, so that what waits for it is never early. */
export const timestamp = (milliseconds: number): string =>
  new Date(Math.ceil(milliseconds / 1000) * 1000).toISOString().replace('.000Z', 'Z')

/** The same to the millisecond, for what is waited for and not only read: a second at most is nothing to a person, but much of a short back-off. */
export const exactTime = (milliseconds: number): string =>
  new Date(Math.ceil(milliseconds)).toISOString().replace('.000Z', 'Z')

/** Milliseconds since 1970; undefined where there is no time or it is none. */
export function instant(time: string | undefined): number | undefined {
  const value = Date.parse(time ?? '')
  return Number.isNaN(value) ? undefined : value
}

export function earliest(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter(time => time !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

export const deletions = (pods: readonly (Pod | undefined)[], because: string): Action[] =>
  pods.flatMap(pod => (pod === undefined || isStopping(pod) ? [] : [{ kind: 'delete' as const, pod, because }]))

/** Nothing new to say: it still waits for what it waited for. */
export function asBefore({ status }: View, otherwise: State): Decision {
  const { nextRestartTime } = status
  return {
    state: status.state ?? otherwise,
    reason: status.reason ?? otherwise,
    message: status.message ?? '',
    ...(nextRestartTime === undefined ? {} : { changes: { nextRestartTime } }),
  }
}

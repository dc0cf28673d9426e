// The types of a decision about a job: its state and why, the actions to take, and the changes to
// put on record.

import type { FailureStatus, State } from '../../crds/status.ts'
import type { Wanted } from '../objects/owned.ts'
import { isStopping } from '../objects/pod-state.ts'
import type { Job, KubeObject, Pod } from '../objects/wire.ts'
import type { View } from './view.ts'

export type Action =
  | { kind: 'create' | 'apply'; object: Wanted }
  /** `force`: do not wait for the pod's node to confirm that the pod has ended. */
  | { kind: 'delete'; pod: Pod; because: string; force?: true }
  | { kind: 'deleteJob'; job: Job; because: string }
  /** Deletes a Workload of Kueue, which lets Kueue remove its finalizers from the pods. */
  | { kind: 'deleteWorkload'; workload: KubeObject; because: string }

/** An event for the user, to be recorded after the status is written. */
export type Note = { type: 'Normal' | 'Warning'; reason: string; action: string; note: string }

/** Fields of the status that a decision sets. null removes the field. */
export type Changes = {
  attempt?: number
  restarts?: number
  restartsCountTowardsMax?: number
  consecutiveRestarts?: number
  startTime?: null
  completionTime?: string
  nextRestartTime?: string | null
  nextResizeTime?: string | null
  /** Number of workers of the next attempt. */
  size?: number
  lastFailure?: FailureStatus
}
export type Decision = {
  state: State
  reason: string
  message: string
  actions?: Action[]
  changes?: Changes
  /** When to look at the job again even if nothing changes, in milliseconds since 1970. */
  requeueAt?: number
  /** Overrides the condition Progressing, which otherwise follows from the state. */
  progressing?: 'False' | 'Unknown'
  /** The deadline, in one word, if nothing but the time asks for what cannot be taken back. */
  deadline?: string
  /** The status is final and is not written again. */
  frozen?: true
}
/** One check of a job. Undefined means that the next policy in order decides. */
export type Policy = (view: View) => Decision | undefined

/** Deletes the pods that were not told to stop yet. */
export const deletions = (pods: readonly (Pod | undefined)[], because: string): Action[] =>
  pods.flatMap(pod => (pod === undefined || isStopping(pod) ? [] : [{ kind: 'delete' as const, pod, because }]))

/** The decision that is on record already, for a job that still waits for the same thing. */
export function asBefore({ status }: View, otherwise: State): Decision {
  const { nextRestartTime } = status
  return {
    state: status.state ?? otherwise,
    reason: status.reason ?? otherwise,
    message: status.message ?? '',
    ...(nextRestartTime === undefined ? {} : { changes: { nextRestartTime } }),
  }
}

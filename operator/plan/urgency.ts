// Decides which jobs are looked at first: those that need pods.

import { LABEL } from '../../crds/contract.ts'
import { isStopping, outcomeOf } from '../objects/pod-state.ts'
import type { Job, Pod } from '../objects/wire.ts'
import { isRefused } from './refusal.ts'
import { managedElsewhere, readSpec, readStatus } from './view.ts'

/**
 * Whether nothing of the job can run before the operator looks at it: it has no pods, or its gang
 * has to be created again. A job that waits for its back-off counts, too: the end of its last pod
 * has replaced the timer for the end of the back-off, and only a look at the job sets it again.
 * A job whose pods are refused does not count, because a look at it would only be refused again.
 */
export function isUrgent(job: Job, pods: readonly Pod[]): boolean {
  const reading = readSpec(job)
  const { state, attempt = 1 } = readStatus(job)
  const over = state === 'Complete' || state === 'Failed' || job.metadata.deletionTimestamp !== undefined
  if (over || managedElsewhere(job) || 'invalid' in reading || reading.spec.suspend) return false
  if (pods.length === 0) return !isRefused(job)
  return pods.some(pod => {
    const podAttempt = Number(pod.metadata.labels?.[LABEL.attempt])
    return !isStopping(pod) && (podAttempt < attempt || (podAttempt === attempt && outcomeOf(pod) === 'failed'))
  })
}

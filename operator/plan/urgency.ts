// Which jobs are looked at first: those that have to get pods. Pure.

import { LABEL } from '../../crds/contract.ts'
import type { Job, Pod } from '../objects/wire.ts'
import { isStopping, outcomeOf } from './gang.ts'
import { managedElsewhere, readSpec, readStatus } from './view.ts'

/**
 * Nothing of the job can run before it has been looked at: it has no pods, or its gang has to be made anew. In a back-off too: its last pod's end has
 * taken the place of the time it was to be looked at, and whoever looks only sets that again.
 */
export function isUrgent(job: Job, pods: readonly Pod[]): boolean {
  const reading = readSpec(job)
  const { state, attempt = 1 } = readStatus(job)
  const over = state === 'Complete' || state === 'Failed' || job.metadata.deletionTimestamp !== undefined
  if (over || managedElsewhere(job) || 'invalid' in reading || reading.spec.suspend) return false
  if (pods.length === 0) return true
  return pods.some(pod => {
    const of = Number(pod.metadata.labels?.[LABEL.attempt])
    return !isStopping(pod) && (of < attempt || (of === attempt && outcomeOf(pod) === 'failed'))
  })
}

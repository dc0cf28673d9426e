// Which jobs are looked at first: those that have to get pods. Pure.

import { LABEL } from '../crds/contract.ts'
import { instant } from './decision.ts'
import { isStopping, outcomeOf } from './gang.ts'
import type { Job, Pod } from './objects.ts'
import { managedElsewhere, readSpec, readStatus } from './view.ts'

/** Nothing of the job can run before it has been looked at: it has no pods and may have some, or its gang has to be made anew. */
export function isUrgent(job: Job, pods: readonly Pod[], now: number): boolean {
  const reading = readSpec(job)
  const { state, attempt = 1, nextRestartTime } = readStatus(job)
  const over = state === 'Complete' || state === 'Failed' || job.metadata.deletionTimestamp !== undefined
  if (over || managedElsewhere(job) || 'invalid' in reading || reading.spec.suspend) return false
  if (pods.length === 0) return now >= (instant(nextRestartTime) ?? 0)
  return pods.some(pod => {
    const of = Number(pod.metadata.labels?.[LABEL.attempt])
    return !isStopping(pod) && (of < attempt || (of === attempt && outcomeOf(pod) === 'failed'))
  })
}

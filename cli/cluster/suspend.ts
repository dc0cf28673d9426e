// scmoe suspend and scmoe resume: set and clear spec.suspend.

import { readStatus } from '../../operator/plan/view.ts'
import { type Cluster, ClusterError } from './client.ts'
import { findJob, patchJob } from './jobs.ts'

/**
 * Returns a sentence about what will happen. Throws ClusterError if the job is finished; to suspend
 * a suspended job is no error.
 */
export async function suspendCommand(cluster: Cluster, name: string, suspend: boolean): Promise<string> {
  const job = await findJob(cluster, name)
  const { state, lastCheckpoint } = readStatus(job)
  if (state === 'Complete' || state === 'Failed')
    throw new ClusterError(`${name} is ${state}, which is final: there is nothing to ${suspend ? 'suspend' : 'resume'}`)
  const { suspend: before = false, checkpoint }: { suspend?: boolean; checkpoint?: object } = job.spec ?? {}
  if (before === suspend) return `${name} is ${suspend ? 'already' : 'not'} suspended`
  await patchJob(cluster, name, { suspend })
  if (!suspend)
    return lastCheckpoint === undefined
      ? `${name} is resumed; it starts at the first step`
      : `${name} is resumed; it continues after step ${lastCheckpoint.step}`
  return checkpoint === undefined
    ? `${name} is suspended; it has no volume for checkpoints, so it will start again at the first step`
    : `${name} is suspended; its workers write a checkpoint and stop. \`scmoe resume ${name}\` continues it`
}

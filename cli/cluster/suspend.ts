// scmoe suspend, scmoe resume.

import { readStatus } from '../../operator/plan/view.ts'
import { type Cluster, ClusterError } from './client.ts'
import { findJob, patchJob } from './jobs.ts'

/** Says what will happen; throws where the job is finished. Doing it twice is no error. */
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
    ? `${name} is suspended; it has no volume for checkpoints, so that it will start at the first step again`
    : `${name} is suspended; its workers write a checkpoint and stop. \`scmoe resume ${name}\` continues it`
}

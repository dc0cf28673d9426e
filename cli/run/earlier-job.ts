// The job that was trained before in an output folder, from the copy that the worker keeps there.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { JOB_COPY } from '../../crds/contract.ts'
import { differences } from '../../crds/differences.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'

/**
 * What the job asks for otherwise than the runs before it, whose checkpoints it goes on from. None
 * if the folder has no copy of a job that can be read, or no checkpoints.
 */
export function changesSince(output: string, spec: ScMoEJobSpec): string[] {
  if (!existsSync(join(output, 'checkpoints'))) return []
  try {
    const job: unknown = JSON.parse(readFileSync(join(output, JOB_COPY), 'utf8'))
    return typeof job === 'object' && job !== null && 'spec' in job ? differences(job.spec, spec) : []
  } catch {
    return []
  }
}

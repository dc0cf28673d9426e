// job.json in the output folder: the job whose files lie there, in a form that `scmoe run` and
// `scmoe eval --job` take.

import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { API_VERSION, JOB_COPY, KIND } from '../../crds/contract.ts'
import type { WorkerConfig } from '../config.ts'
import { writing } from './output.ts'

/** A run that goes on after another one replaces the copy of that one. */
export function keepJob(folder: string, { jobName, spec }: Pick<WorkerConfig, 'jobName' | 'spec'>): void {
  const path = join(folder, JOB_COPY)
  const job = { apiVersion: API_VERSION, kind: KIND, metadata: { name: jobName }, spec }
  writing(path, () => {
    writeFileSync(`${path}.tmp`, `${JSON.stringify(job, null, 2)}\n`)
    renameSync(`${path}.tmp`, path)
  })
}

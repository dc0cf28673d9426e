// The job that was trained before in an output folder, from the copy that the worker keeps there.

import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { JOB_COPY } from '../../crds/contract.ts'
import { differences } from '../../crds/differences.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { JobFileError } from '../job-file.ts'

/**
 * A text for each setting that shapes what is learnt and that the job has otherwise than the run
 * before it. None if the folder has no copy of a job that can be read.
 */
export function changesSince(output: string, spec: ScMoEJobSpec): string[] {
  const job = readJson(join(output, JOB_COPY))
  if (typeof job !== 'object' || job === null || !('spec' in job)) return []
  return [...differences(job.spec, spec), ...dataChange(output, spec)]
}

/** The copy was written when the run before began, which had read its data by then. */
function dataChange(output: string, { data: { path } }: ScMoEJobSpec): string[] {
  if (path === undefined) return []
  const [data, copy] = [path, join(output, JOB_COPY)].map(file => statSync(file, { throwIfNoEntry: false }))
  if (data === undefined || copy === undefined || data.mtimeMs <= copy.mtimeMs) return []
  return [`${path}, the file of spec.data.path, was changed after the run before had begun`]
}

/** Throws JobFileError if the copy of the job would replace the file that the user wrote. */
export function demandOwnPlace(file: string, output: string): void {
  const place = join(output, JOB_COPY)
  if (file === '-' || !isSameFile(file, place)) return
  // A copy may be run again.
  const isCopy = `${JSON.stringify(readJson(place), undefined, 2)}\n` === readFileSync(place, 'utf8')
  if (!isCopy)
    throw new JobFileError(`${place} would be replaced by a copy of the job: give another folder with --output`)
}

/** Also where a link leads to the file. */
function isSameFile(a: string, b: string): boolean {
  const [one, other] = [a, b].map(path => statSync(path, { bigint: true, throwIfNoEntry: false }))
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

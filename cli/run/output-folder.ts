// The output folder of a run: makes it, and looks for what earlier runs have left in it.

import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { JOB_COPY } from '../../crds/contract.ts'
import { JobFileError } from '../job-file.ts'
import { causeOf } from '../sentence.ts'

export function makeFolder(output: string): void {
  try {
    makeBelow(output)
  } catch (error) {
    throw new JobFileError(
      `the output folder ${output} cannot be created (${causeOf(error)}): give another with --output`,
    )
  }
}

/**
 * Creates a folder and its parents. Node's own recursive mkdir never returns on a file system that
 * cannot hold folders, such as /proc.
 */
function makeBelow(folder: string): void {
  const found = statSync(folder, { throwIfNoEntry: false })
  if (found?.isDirectory()) return
  if (found === undefined) makeBelow(dirname(folder))
  mkdirSync(folder)
}

/** The steps that the newest complete checkpoint had done; undefined without a checkpoint. */
export function newestCheckpoint(output: string): number | undefined {
  const steps = namesIn(join(output, 'checkpoints')).flatMap(name => /^step-(\d{8,})$/.exec(name)?.[1] ?? [])
  return steps.length === 0 ? undefined : Math.max(...steps.map(Number))
}

/** Removes what ranks that were killed were writing. No rank may be alive. */
export function removeUnfinished(output: string): void {
  const checkpoints = join(output, 'checkpoints')
  for (const name of namesIn(checkpoints))
    if (name.startsWith('.tmp-')) rmSync(join(checkpoints, name), { recursive: true, force: true })
  for (const name of ['losses.jsonl.tmp', `${JOB_COPY}.tmp`]) rmSync(join(output, name), { force: true })
}

const RESULTS = [JOB_COPY, 'summary.json', 'losses.jsonl', 'logs', 'checkpoints']

/** The names of the results that a run has left, for people. */
export function resultsIn(output: string): string[] {
  const names = namesIn(output)
  const traces = names.some(name => /^trace-rank\d+\.json$/.test(name)) ? ['trace-rank<rank>.json'] : []
  return [...RESULTS.filter(name => names.includes(name)), ...traces]
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

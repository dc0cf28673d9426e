// The copy of the job that a run keeps beside its results, and what a later run in the same folder
// does differently.

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { API_VERSION, GROUP, KIND } from '../../crds/contract.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { JobFileError } from '../job-file.ts'
import { causeOf } from '../sentence.ts'

/** A name that a user's own manifest in the same folder does not have. */
export const COPY = 'scmoe-job.json'
/** Tells one content of the data file from another. */
const DATA = `${GROUP}/data-file`

const Copy = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).optional() }),
  spec: z.record(z.string(), z.unknown()),
})

/** A ScMoEJob that `scmoe run` takes again; undefined if no run has left one. */
type Copy = z.infer<typeof Copy>

export function readCopy(output: string): Copy | undefined {
  try {
    return Copy.parse(JSON.parse(readFileSync(join(output, COPY), 'utf8')))
  } catch {
    return undefined
  }
}

export function copyOf(name: string, spec: ScMoEJobSpec) {
  const data = dataFile(spec)
  const metadata = { name, ...(data !== undefined && { annotations: { [DATA]: data } }) }
  return { apiVersion: API_VERSION, kind: KIND, metadata, spec }
}

/** Throws JobFileError if the folder cannot be written. */
export function writeCopy(output: string, copy: object): void {
  const path = join(output, COPY)
  try {
    writeFileSync(path, `${JSON.stringify(copy, undefined, 2)}\n`)
  } catch (error) {
    throw new JobFileError(`${path} cannot be written (${causeOf(error)}): free space, or give another --output`)
  }
}

/** e.g. `1234 bytes, changed 2026-01-01T00:00:00.000Z`; undefined for a text of the image. */
function dataFile({ data }: ScMoEJobSpec): string | undefined {
  const found = data.path === undefined ? undefined : statSync(data.path, { throwIfNoEntry: false })
  return found && `${found.size} bytes, changed ${found.mtime.toISOString()}`
}

/** Fields that say how long to train and how to report, and not what is learnt. */
const HARMLESS = /^(suspend|managedBy|reporting|training\.steps|checkpoint|scheduling|network|workers\.template)(\.|$)/

/** A text for each field that an earlier run had otherwise, e.g. `data.path was "a" and is "b"`. */
export function differences(before: Copy, now: Copy): string[] {
  const [old, fresh] = [leaves(before.spec), leaves(now.spec)]
  const fields = [...new Set([...old.keys(), ...fresh.keys()])].filter(
    field => old.get(field) !== fresh.get(field) && !HARMLESS.test(field),
  )
  const texts = fields.map(
    field => `${field} was ${old.get(field) ?? 'not set'} and is ${fresh.get(field) ?? 'not set'}`,
  )
  const [oldData, freshData] = [before, now].map(({ metadata }) => metadata.annotations?.[DATA])
  const isOtherContent = oldData !== freshData && oldData !== undefined && freshData !== undefined
  return isOtherContent && !fields.includes('data.path')
    ? [...texts, `the file of data.path was of ${oldData}, and is of ${freshData}`]
    : texts
}

function leaves(value: unknown, path = ''): Map<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return new Map([[path, JSON.stringify(value)]])
  return new Map(
    Object.entries(value).flatMap(([name, child]) =>
      child === undefined ? [] : [...leaves(child, path === '' ? name : `${path}.${name}`)],
    ),
  )
}

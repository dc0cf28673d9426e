// Names of what is being written or removed in a folder of checkpoints. They say whose it is, so
// that two gangs never write the same file, and an older gang leaves the newer one's alone.

import { createHash } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { CheckpointPlace } from './place.ts'

type Owner = Pick<CheckpointPlace, 'jobUid' | 'attempt' | 'gang'>

const PREFIX = '.tmp-'
const jobOf = (uid: string) => createHash('sha256').update(uid).digest('hex').slice(0, 8)

/** `.tmp-<job>-<attempt>-<gang>-<what>` */
export const temporaryOf = ({ jobUid, attempt, gang }: Owner, what: string) =>
  `${PREFIX}${jobOf(jobUid)}-${attempt}-${gang}-${what}`

/** Whether a name is left over from another gang that is no newer attempt of this job. Pure. */
export function isLeftover(name: string, { jobUid, attempt, gang }: Owner): boolean {
  if (!name.startsWith(PREFIX)) return false
  const [, job, number, other] = /^\.tmp-([0-9a-f]{8})-(\d+)-([^-]+)-/.exec(name) ?? []
  return job !== jobOf(jobUid) || (Number(number) <= attempt && other !== gang)
}

/** Removes what earlier gangs left unfinished. Only rank 0 calls it, before any rank writes. */
export async function removeLeftovers(place: CheckpointPlace): Promise<void> {
  for (const name of await readdir(place.directory))
    if (isLeftover(name, place)) await rm(join(place.directory, name), { recursive: true, force: true })
}

// The claim on a folder of checkpoints. Each gang takes the folder when it starts and looks before
// it publishes or removes a checkpoint whether the folder is still its own. So a gang that lives on
// after its pods were given up, on a node that is cut off, changes nothing any more.

import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { errnoCode, WorkerFailure } from '../failure.ts'
import type { CheckpointPlace } from './place.ts'
import { openFile, readExactly } from './safetensors.ts'
import { temporaryOf } from './temporary.ts'

export const CLAIM = 'claim.json'
const MAX_CLAIM = 4096

const Claim = z.object({
  jobUid: z.string(),
  attempt: z.int().min(0),
  /** Differs between all gangs, also of one attempt: processes started by hand have no attempts. */
  gang: z.string(),
  claimedTime: z.string(),
})
type Claim = z.infer<typeof Claim>

/** Takes the folder; only rank 0 calls it. Throws if a newer attempt of this job has it. */
export async function claim(place: CheckpointPlace): Promise<void> {
  const { directory, jobUid, attempt, gang } = place
  const found = await readClaim(directory)
  if (found?.jobUid === jobUid && found.attempt > attempt) throw taken(place, found)
  const temporary = join(directory, temporaryOf(place, 'claim'))
  const file = await open(temporary, 'w')
  try {
    const own: Claim = { jobUid, attempt, gang, claimedTime: new Date().toISOString() }
    await file.writeFile(`${JSON.stringify(own)}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, join(directory, CLAIM))
}

/** Throws if another gang has taken the folder since. */
export async function demandClaim(place: CheckpointPlace): Promise<void> {
  const found = await readClaim(place.directory)
  if (found !== undefined && found.gang !== place.gang) throw taken(place, found)
}

/** The claim that is there. A file that is no claim belongs to nobody. */
async function readClaim(directory: string): Promise<Claim | undefined> {
  try {
    const file = await openFile(join(directory, CLAIM))
    try {
      const { size } = await file.stat()
      const text = new TextDecoder().decode(await readExactly(file, 0, Math.min(size, MAX_CLAIM)))
      return Claim.safeParse(JSON.parse(text)).data
    } finally {
      await file.close()
    }
  } catch (error) {
    if (errnoCode(error) === undefined || errnoCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function taken({ directory, jobUid, attempt }: CheckpointPlace, found: Claim): WorkerFailure {
  const since = `took ${directory} at ${found.claimedTime}`
  if (found.jobUid !== jobUid) {
    return new WorkerFailure(
      'badConfig',
      `Another job (uid ${found.jobUid}) ${since}, so this job (uid ${jobUid}) ends without writing there: give each job a volume, a subPath or an output folder of its own.`,
    )
  }
  const who = found.attempt === attempt ? `Another gang of attempt ${attempt}` : `Attempt ${found.attempt}`
  return new WorkerFailure(
    'checkpoint',
    `${who} of this job ${since}, so this gang (attempt ${attempt}) ends without writing there. If no other gang runs, remove ${join(directory, CLAIM)}.`,
  )
}

// Finds out before the first step whether checkpoints can be written, and not after hours of
// training.

import { open, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoText, WorkerFailure } from '../failure.ts'
import { inTime, makeFolder } from '../report/output.ts'
import type { CheckpointPlace } from './place.ts'
import { temporaryOf } from './temporary.ts'

/** Bytes of the file that is written. A full disk may still have room for an empty file. */
const PROBE_BYTES = 1 << 16

/**
 * Writes a small file into the folder and removes it, and throws a `checkpoint` failure that names
 * the folder if that fails, or if there is no room for `bytes`.
 */
export async function demandRoom(
  place: Pick<CheckpointPlace, 'directory' | 'jobUid' | 'attempt' | 'gang' | 'rank'>,
  bytes: number,
): Promise<void> {
  const { directory } = place
  try {
    await inTime(probe(directory, temporaryOf(place, `probe-${place.rank}`)))
    const { blocks, bavail, bsize } = await inTime(statfs(directory))
    // Some network file systems do not say how large they are.
    if (blocks > 0 && bavail * bsize < bytes)
      throw new Error(
        `ENOSPC: ${megabytes(bavail * bsize)} are free, and a checkpoint of this model takes ${megabytes(bytes)}`,
      )
  } catch (error) {
    throw new WorkerFailure(
      'checkpoint',
      `No checkpoint can be written to ${directory}: ${errnoText(error)}. Check the volume: free space, permissions and read-only mounts.`,
      { cause: error },
    )
  }
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`

async function probe(directory: string, name: string): Promise<void> {
  await makeFolder(directory)
  const path = join(directory, name)
  const file = await open(path, 'w')
  try {
    await file.writeFile(new Uint8Array(PROBE_BYTES))
    await file.sync()
  } finally {
    await file.close()
    await rm(path, { force: true })
  }
}

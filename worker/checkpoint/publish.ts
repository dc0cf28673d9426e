// The end of a checkpoint, on rank 0 when all files are written: the index, the final name of the
// folder, and the removal of checkpoints that are too old. What a newer attempt wrote stays.

import { open, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { errnoCode, WorkerFailure } from '../failure.ts'
import { sliceOf } from '../model/tensors.ts'
import type { Losses } from '../report/losses.ts'
import { demandClaim } from './claim.ts'
import {
  type CheckpointIndex,
  encodeIndex,
  folderOf,
  type Identity,
  INDEX,
  isDamage,
  listSteps,
  modelFields,
  readIndex,
} from './contents.ts'
import type { CheckpointPlace, Held } from './place.ts'
import { temporaryOf } from './temporary.ts'

/** Fields of the index that the place does not give. */
export interface Content {
  identity: Identity
  files: CheckpointIndex['files']
  held: readonly Held[]
  losses: Losses
}

/** The fields that identify the checkpoint of a step; the same on all ranks. */
export function identityOf({ model, jobUid, attempt, seed, trained }: CheckpointPlace, step: number): Identity {
  return {
    version: 2,
    step,
    jobUid,
    attempt,
    seed,
    globalBatchSequences: model.batch * model.worldSize,
    worldSize: model.worldSize,
    expertParallelSize: model.expertParallelSize,
    model: modelFields(model),
    trained: trained(),
  }
}

export function indexOf({ model }: CheckpointPlace, content: Content): CheckpointIndex {
  const where: CheckpointIndex['tensors'] = {}
  for (const { name, tensor } of content.held) {
    const writers = tensor.kind === 'dense' ? 1 : model.expertParallelSize
    where[name] = Array.from({ length: writers }, (_, file) => ({ file, ...sliceOf(tensor, model, file) }))
  }
  return {
    ...content.identity,
    savedTime: new Date().toISOString(),
    losses: content.losses,
    files: content.files,
    tensors: where,
  }
}

/**
 * Makes the files in `temporary` a checkpoint. Throws when rank 0 does not see a file of another
 * rank in full.
 */
export async function publish(place: CheckpointPlace, temporary: string, index: CheckpointIndex): Promise<void> {
  for (const { name, bytes } of index.files) {
    const seen = await stat(join(temporary, name)).catch(() => undefined)
    if (seen?.size !== bytes)
      throw new Error(
        `${name}, written by another rank, is not visible to rank 0: every worker must mount the same volume`,
      )
  }
  await writeFile(join(temporary, INDEX), encodeIndex(index), { flag: 'wx', flush: true })
  await syncFolder(temporary)
  const folder = join(place.directory, folderOf(index.step))
  await demandClaim(place)
  await discard(place, folder)
  await rename(temporary, folder)
  await syncFolder(place.directory)
  await syncFolder(dirname(place.directory))
  await demandClaim(place)
  // Steps beyond this one are of a gang that lost its claim meanwhile. They do not count, and they
  // go when this gang has passed them.
  const steps = (await listSteps(place.directory)).filter(step => step <= index.step)
  for (const step of steps.slice(place.keep)) await discard(place, join(place.directory, folderOf(step)))
}

/**
 * Removes a checkpoint, if there is one. It is renamed first, so that half of it never looks like a
 * checkpoint. Throws and puts it back if it is of a newer attempt.
 */
async function discard(place: CheckpointPlace, folder: string): Promise<void> {
  const going = join(dirname(folder), temporaryOf(place, `old-${basename(folder)}`))
  try {
    await rename(folder, going)
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return
    throw error
  }
  // Only now can nobody put another checkpoint in its place.
  const attempt = await attemptOf(place, going)
  if (attempt > place.attempt) {
    await rename(going, folder)
    throw new WorkerFailure(
      'checkpoint',
      `${folder} was written by attempt ${attempt} of this job, so this gang (attempt ${place.attempt}) ends and leaves it there.`,
    )
  }
  await rm(going, { recursive: true, force: true })
}

/** The attempt that wrote a checkpoint; 0 if another job wrote it or if it is not usable. */
async function attemptOf({ jobUid }: CheckpointPlace, folder: string): Promise<number> {
  try {
    const index = await readIndex(folder)
    return index.jobUid === jobUid ? (index.attempt ?? 0) : 0
  } catch (error) {
    if (isDamage(error)) return 0
    throw error
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

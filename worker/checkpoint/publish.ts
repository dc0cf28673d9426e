// The end of a checkpoint, on rank 0 when all files are written: the index, the final name of the
// folder, and the removal of checkpoints that are too old.

import { open, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sliceOf } from '../model/tensors.ts'
import type { Losses } from '../report/losses.ts'
import { type CheckpointIndex, encodeIndex, folderOf, INDEX, listSteps, modelFields } from './contents.ts'
import { type CheckpointPlace, type Held, TEMPORARY } from './place.ts'

/** Fields of the index that the place does not give. */
export interface Content {
  step: number
  files: CheckpointIndex['files']
  held: readonly Held[]
  losses: Losses
}

export function indexOf({ model, jobUid, seed, trained }: CheckpointPlace, content: Content): CheckpointIndex {
  const where: CheckpointIndex['tensors'] = {}
  for (const { name, tensor } of content.held) {
    const writers = tensor.kind === 'dense' ? 1 : model.expertParallelSize
    where[name] = Array.from({ length: writers }, (_, file) => ({ file, ...sliceOf(tensor, model, file) }))
  }
  return {
    version: 2,
    step: content.step,
    jobUid,
    savedTime: new Date().toISOString(),
    seed,
    globalBatchSequences: model.batch * model.worldSize,
    worldSize: model.worldSize,
    expertParallelSize: model.expertParallelSize,
    model: modelFields(model),
    losses: content.losses,
    trained: trained(),
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
  await discard(folder)
  await rename(temporary, folder)
  await syncFolder(place.directory)
  await syncFolder(dirname(place.directory))
  for (const step of (await listSteps(place.directory)).slice(place.keep))
    await discard(join(place.directory, folderOf(step)))
}

/** Removes a folder. It is renamed first, so that half of it never looks like a checkpoint. */
async function discard(folder: string): Promise<void> {
  const going = join(dirname(folder), `${TEMPORARY}old-${Date.now()}-${process.pid}`)
  try {
    await rename(folder, going)
  } catch {
    return
  }
  await rm(going, { recursive: true, force: true })
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

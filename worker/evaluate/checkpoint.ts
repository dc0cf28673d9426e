// Finds what there is to evaluate at a path, and reads its parameters: a checkpoint of this
// program, written by any number of ranks, or weights of another program.

import { statSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type CheckpointIndex, folderOf, INDEX, listSteps, modelDifference, readIndex } from '../checkpoint/contents.ts'
import { layoutOf } from '../checkpoint/layout.ts'
import { readHeld } from '../checkpoint/restore.ts'
import { errnoText, WorkerFailure } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { sliceOf, tensors } from '../model/tensors.ts'
import { readWeights } from './weights.ts'

export type Source =
  | { kind: 'checkpoint'; folder: string; index: CheckpointIndex }
  | { kind: 'weights'; files: string[] }

const bad = (message: string) => new WorkerFailure('badConfig', message)
const notUsable = (folder: string, file: string, error: unknown) =>
  bad(`The checkpoint ${folder} is not usable: ${file}: ${short(error)}. Give the folder of another step.`)
const short = (error: unknown) => errnoText(error).replaceAll(/\s+/g, ' ').slice(0, 300)

/**
 * The source that `path` means: a checkpoint's folder, otherwise the newest checkpoint in a folder
 * of checkpoints or in an output folder, otherwise the safetensors files of a folder. A path that
 * is no folder is taken for one such file. Throws `badConfig` if there is nothing of this kind, or
 * if an index cannot be read.
 */
export async function locate(path: string): Promise<Source> {
  const found = await stat(path).catch((error: unknown) => {
    throw bad(`The checkpoint ${path} cannot be read: ${short(error)}. Give the folder of a checkpoint or of weights.`)
  })
  if (!found.isDirectory()) return { kind: 'weights', files: [path] }
  const names = await readdir(path).catch((error: unknown) => {
    throw bad(`The checkpoint ${path} cannot be listed: ${short(error)}.`)
  })
  if (names.includes(INDEX)) return ownCheckpoint(path)
  for (const folder of [path, join(path, 'checkpoints')]) {
    const [newest] = await listSteps(folder).catch(() => [])
    if (newest !== undefined) return ownCheckpoint(join(folder, folderOf(newest)))
  }
  const files = names.filter(name => name.endsWith('.safetensors')).toSorted()
  if (files.length > 0) return { kind: 'weights', files: files.map(name => join(path, name)) }
  throw bad(
    `${path} holds no checkpoint: give a folder with ${INDEX}, the output folder of a run, or a folder with .safetensors files.`,
  )
}

async function ownCheckpoint(folder: string): Promise<Source> {
  try {
    return { kind: 'checkpoint', folder, index: await readIndex(folder) }
  } catch (error) {
    throw notUsable(folder, INDEX, error)
  }
}

/**
 * Throws `badConfig` if a checkpoint is of another model than the job's, or if its index does not
 * list the tensors of that model. It is asked before memory is taken for them.
 */
export function demandModel(source: Source, model: ModelConfig): void {
  if (source.kind === 'weights') return
  const { folder, index } = source
  const difference = modelDifference(index.model, model)
  if (difference !== undefined) {
    throw bad(
      `The checkpoint ${folder} was made with ${difference}: give the job of the checkpoint, or leave --job out.`,
    )
  }
  try {
    for (const { name, bytes } of layoutOf(index, tensors(model))) {
      const size = statSync(join(folder, name), { throwIfNoEntry: false })?.size
      if (size !== bytes) throw new Error(`${name} has ${size ?? 'no'} bytes instead of ${bytes}`)
    }
  } catch (error) {
    throw notUsable(folder, INDEX, error)
  }
}

/**
 * Fills the parameters of the whole model, in the memory that `view` gives. Throws `badConfig` with
 * what is wrong and what to do.
 */
export async function readParameters(
  source: Source,
  model: ModelConfig,
  view: (name: string) => Float32Array,
): Promise<void> {
  const expected = tensors(model)
  if (source.kind === 'weights') return readWeights(source.files, expected, view)
  const held = expected.map(tensor => ({
    name: tensor.name,
    tensor,
    slice: sliceOf(tensor, model, 0),
    data: view(tensor.name),
  }))
  let file = INDEX
  try {
    await readHeld(source.folder, { index: source.index, tensors: expected, held }, name => {
      file = name
    })
  } catch (error) {
    throw notUsable(source.folder, file, error)
  }
}

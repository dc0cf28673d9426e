// The place of checkpoints and the tensors that a rank holds, as writer and reader share them.

import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ModelConfig } from '../model/config.ts'
import { meanOf, type Slice, sliceOf, type Tensor, tensors, varianceOf } from '../model/tensors.ts'
import type { Reduce } from '../ranks/together.ts'
import type { Trained } from './contents.ts'

export interface CheckpointPlace {
  /** `<output>/checkpoints`, the same folder for all ranks. */
  directory: string
  /** Checkpoints that stay; older ones are removed. */
  keep: number
  model: ModelConfig
  rank: number
  jobUid: string
  seed: number
  /** The words of the index about training; asked when a checkpoint is written. */
  trained: () => Trained
  reduce: Reduce
}

/** A parameter or one of its two moments, as this rank holds it. */
export interface Held {
  name: string
  tensor: Tensor
  slice: Slice
  data: Float32Array
}

/** All that this rank holds of a model's state, in the memory that `view` gives. */
export function heldTensors(model: ModelConfig, rank: number, view: (name: string) => Float32Array): Held[] {
  return tensors(model).flatMap(tensor =>
    [tensor.name, meanOf(tensor.name), varianceOf(tensor.name)].map(name => ({
      name,
      tensor,
      slice: sliceOf(tensor, model, rank),
      data: view(name),
    })),
  )
}

/** Name prefix of folders that are being written or removed. */
export const TEMPORARY = '.tmp-'

/** Removes what earlier processes left unfinished. Only rank 0 calls it, before any rank writes. */
export async function removeLeftovers(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => [])
  for (const name of names)
    if (name.startsWith(TEMPORARY)) await rm(join(directory, name), { recursive: true, force: true })
}

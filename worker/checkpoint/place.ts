// The place of checkpoints and the tensors that a rank holds, as writer and reader share them.

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
  attempt: number
  /** Name of this gang, which no other gang has; the same on all ranks. */
  gang: string
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

/**
 * Ranks that write a file each, from 0 on: those of the first expert-data-parallel replica, or rank
 * 0 alone if the model has no experts, because the others hold nothing of their own.
 */
export function writersOf(model: ModelConfig): number {
  return tensors(model).some(({ kind }) => kind === 'expert') ? model.expertParallelSize : 1
}

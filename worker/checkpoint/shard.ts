// The file that one rank writes into a checkpoint: the experts on ranks of the first
// expert-data-parallel replica, and on rank 0 the dense tensors as well. A rank without either
// writes none.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoCode } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { type CheckpointPlace, type Held, writersOf } from './place.ts'
import { encodeHeader, type Tensor as FileTensor, type Written, writeSafetensors } from './safetensors.ts'
import { writeBeside } from './thread.ts'

/** Value of the metadata key `format`. */
export const FORMAT = 'scmoe-1'

/** The tensors that a rank writes. */
export interface Part {
  held: readonly Held[]
  /** Holds all of them, one after another, if they were copied. */
  memory: ArrayBuffer | undefined
}

/** The tensors among `held` that this rank writes; none on ranks that write no file. */
export function writtenBy(rank: number, held: readonly Held[], model: ModelConfig): Held[] {
  if (rank >= writersOf(model)) return []
  return held.filter(({ tensor }) => rank === 0 || tensor.kind === 'expert')
}

/** A copy of the tensors in `memory`, which training does not change. */
export function copied(own: readonly Held[], memory: ArrayBuffer): Part {
  let offset = 0
  const held = own.map(item => {
    const data = new Float32Array(memory, offset, item.data.length)
    data.set(item.data)
    offset += data.byteLength
    return { ...item, data }
  })
  return { held, memory }
}

export const shardName = (rank: number, model: ModelConfig) => `shard-${rank}-of-${writersOf(model)}.safetensors`

/**
 * Writes the file of this rank, on a thread if the tensors were copied; `body` is then the copy.
 */
export async function writeShard(
  place: CheckpointPlace,
  folder: string,
  { step, mark, part: { held, memory } }: { step: number; mark: string; part: Part },
): Promise<Written & { body?: ArrayBuffer }> {
  const { model, rank } = place
  // Another rank may have made it already.
  await mkdir(folder).catch((error: unknown) => {
    if (errnoCode(error) !== 'EEXIST') throw error
  })
  const perRank = model.experts / model.expertParallelSize
  const hasExperts = held.some(({ tensor }) => tensor.kind === 'expert')
  const files: FileTensor[] = held.map(({ name, tensor, data }) => ({
    name,
    shape: tensor.kind === 'dense' ? tensor.shape : [perRank, ...tensor.shape.slice(1)],
    data,
  }))
  const metadata = {
    format: FORMAT,
    step: String(step),
    ...(hasExperts && { experts: `${rank * perRank}-${(rank + 1) * perRank - 1} of ${model.experts}` }),
    checkpoint: mark,
  }
  const path = join(folder, shardName(rank, model))
  return memory === undefined
    ? writeSafetensors(path, files, metadata)
    : writeBeside(path, encodeHeader(files, metadata), memory)
}

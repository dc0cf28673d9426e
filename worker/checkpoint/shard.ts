// The file that one rank writes into a checkpoint: the experts on ranks of the first
// expert-data-parallel replica, and on rank 0 the dense tensors as well.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ModelConfig } from '../model/config.ts'
import type { CheckpointPlace, Held } from './place.ts'
import { encodeHeader, type Tensor as FileTensor, type Written, writeSafetensors } from './safetensors.ts'
import { writeBeside } from './thread.ts'

/** The tensors that a rank writes. */
export interface Part {
  held: readonly Held[]
  /** Holds all of them, one after another, if they were copied. */
  memory: ArrayBuffer | undefined
}

/** The tensors among `held` that this rank writes; none on ranks of other replicas. */
export function writtenBy(rank: number, held: readonly Held[], model: ModelConfig): Held[] {
  if (rank >= model.expertParallelSize) return []
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

export const shardName = (rank: number, model: ModelConfig) =>
  `shard-${rank}-of-${model.expertParallelSize}.safetensors`

/**
 * Writes the file of this rank, on a thread if the tensors were copied; `body` is then the copy.
 */
export async function writeShard(
  place: CheckpointPlace,
  folder: string,
  { step, part: { held, memory } }: { step: number; part: Part },
): Promise<Written & { body?: ArrayBuffer }> {
  const { model, rank } = place
  await mkdir(folder, { recursive: true })
  const perRank = model.experts / model.expertParallelSize
  const files: FileTensor[] = held.map(({ name, tensor, data }) => ({
    name,
    shape: tensor.kind === 'dense' ? tensor.shape : [perRank, ...tensor.shape.slice(1)],
    data,
  }))
  const metadata = {
    format: 'scmoe-1',
    step: String(step),
    experts: `${rank * perRank}-${(rank + 1) * perRank - 1} of ${model.experts}`,
  }
  const path = join(folder, shardName(rank, model))
  return memory === undefined
    ? writeSafetensors(path, files, metadata)
    : writeBeside(path, encodeHeader(files, metadata), memory)
}

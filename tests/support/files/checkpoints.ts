// Checkpoints of gangs whose ranks are promises of one process, with values that tell where each of
// them belongs.

import { join } from 'node:path'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import type { Trained } from '../../../worker/checkpoint/contents.ts'
import { type CheckpointPlace, type Held, heldTensors } from '../../../worker/checkpoint/place.ts'
import { restoreCheckpoint } from '../../../worker/checkpoint/restore.ts'
import { type Saved, Saving } from '../../../worker/checkpoint/saving.ts'
import { type ModelConfig, modelConfig } from '../../../worker/model/config.ts'
import { sliceOf, tensors } from '../../../worker/model/tensors.ts'
import { reducers } from '../reducers.ts'

/** A model of 8 experts on `worldSize` ranks; `change` changes its fields in the job. */
export function model(worldSize: number, expertParallelSize: number, change: object = {}): ModelConfig {
  const spec = ScMoEJobSpec.parse({
    model: { blocks: 2, hiddenSize: 16, heads: 2, feedForwardSize: 16, experts: 8, ...change },
    training: { steps: 1, globalBatchSequences: 24, sequenceLength: 8 },
    parallelism: { expertParallelSize },
    workers: { replicas: worldSize },
  })
  return modelConfig(spec, worldSize)
}

/**
 * The state of one rank. Element i of the global tensor number t is a function of t, i and `step`;
 * without a step it is NaN.
 */
export function stateOf(config: ModelConfig, rank: number, step?: number): Held[] {
  const slices = new Map(tensors(config).map(tensor => [tensor.name, sliceOf(tensor, config, rank)]))
  const memory = (name: string) => new Float32Array(slices.get(name.replace(/\.[mv]$/, ''))?.count ?? 0)
  const held = heldTensors(config, rank, memory)
  for (const [t, { data, slice }] of held.entries()) {
    for (let i = 0; i < data.length; i++)
      data[i] = step === undefined ? Number.NaN : Math.fround(step + t / 7 + (slice.start + i) / 1e4)
  }
  return held
}

export const TRAINED: Trained = {
  data: { source: '/data/tokens', tokens: 'uint16', length: 1000 },
  learningRate: { peak: 6e-4, warmupSteps: 20, totalSteps: 200, from: 100, reached: 0.5 },
}

/** The values of all tensors that a rank holds. */
export const valuesOf = (held: readonly Held[]) => held.map(({ data }) => data)

export type Change = Partial<Pick<CheckpointPlace, 'keep' | 'attempt' | 'gang' | 'jobUid' | 'directory'>>

/** The place of each rank of a gang, in the folder `checkpoints` of `folder`. */
export const places = (folder: string, config: ModelConfig, change: Change = {}): CheckpointPlace[] =>
  reducers(config.worldSize).map((reduce, rank) => ({
    directory: join(folder, 'checkpoints'),
    keep: 2,
    model: config,
    rank,
    jobUid: 'uid',
    attempt: 1,
    gang: 'one',
    seed: 1,
    trained: () => TRAINED,
    reduce,
    ...change,
  }))

const LOSSES = { last: { evaluationLoss: 2, loss: 1 }, first: {} }

/** Writes the checkpoint of a step, with the state of this step. */
export const saveAll = (all: readonly CheckpointPlace[], step: number): Promise<Saved[]> =>
  Promise.all(
    all.map(async place =>
      (await Saving.start(place, step, { held: stateOf(place.model, place.rank, step), losses: LOSSES })).finish(),
    ),
  )

/** The state that each rank of a gang restores, and the warnings of all ranks. */
export async function restoreAll(all: readonly CheckpointPlace[]) {
  const warnings: string[] = []
  const ranks = all.map(async place => {
    const held = stateOf(place.model, place.rank)
    return { held, restored: await restoreCheckpoint(place, held, message => warnings.push(message)) }
  })
  return { ranks: await Promise.all(ranks), warnings }
}

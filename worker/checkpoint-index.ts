// What a checkpoint folder is called and what its index.json says. A checkpoint is complete when its folder has its final name;
// it is usable when the index and every file match their checksums.

import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ModelConfig } from './model.ts'

export const INDEX = 'index.json'

const count = z.int().min(0)

const ModelFields = z.strictObject({
  kind: z.string(),
  pairs: count,
  dim: count,
  heads: count,
  feedForward: count,
  experts: count,
  topK: count,
  sequence: count,
})
type ModelFields = z.infer<typeof ModelFields>

/** What the spec calls a field that two checkpoints of one model must agree on. */
const SPEC_FIELD: Record<keyof ModelFields, string> = {
  kind: 'model.kind',
  pairs: 'model.blocks / 2',
  dim: 'model.hiddenSize',
  heads: 'model.heads',
  feedForward: 'model.feedForwardSize',
  experts: 'model.experts',
  topK: 'model.topK',
  sequence: 'training.sequenceLength',
}

const LossPair = z.object({ loss: z.number().optional(), evaluationLoss: z.number().optional() })

/** Of the very start of the job and of the step saved: what a resumed run could not know. */
export const Losses = z.object({ first: LossPair, last: LossPair })
export type Losses = z.infer<typeof Losses>

export const CheckpointIndex = z.object({
  version: z.literal(1),
  /** Optimizer steps done; with the seed, also the data position and the state of every random choice. */
  step: count,
  jobUid: z.string(),
  savedTime: z.string(),
  seed: count,
  globalBatchSequences: count,
  worldSize: count,
  expertParallelSize: count,
  model: ModelFields,
  losses: Losses,
  files: z.array(z.object({ name: z.string(), bytes: count, sha256: z.string() })),
  /** Where the elements start .. start + count - 1 of a global tensor lie: index into files. */
  tensors: z.record(z.string(), z.array(z.object({ file: count, start: count, count }))),
})
export type CheckpointIndex = z.infer<typeof CheckpointIndex>

/** The checksum is of the content as written: its keys keep their order. */
const Sealed = z.object({ content: z.unknown(), sha256: z.string() })

const seal = (content: unknown) => createHash('sha256').update(JSON.stringify(content)).digest('hex')

export function encodeIndex(content: CheckpointIndex): string {
  return `${JSON.stringify({ content, sha256: seal(content) }, null, 1)}\n`
}

/** Reads and verifies `<folder>/index.json`; throws with the reason why it is not usable. */
export async function readIndex(folder: string): Promise<CheckpointIndex> {
  const json: unknown = JSON.parse(await readFile(join(folder, INDEX), 'utf8'))
  const { content, sha256 } = Sealed.parse(json)
  if (seal(content) !== sha256) throw new Error('its checksum differs: the file was changed or damaged')
  return CheckpointIndex.parse(content)
}

export function modelFields(config: ModelConfig): ModelFields {
  const { kind, pairs, dim, heads, feedForward, experts, topK, sequence } = config
  return { kind, pairs, dim, heads, feedForward, experts, topK, sequence }
}

/** The first field in which a checkpoint's model differs from the job's, as text. */
export function modelDifference(saved: ModelFields, config: ModelConfig): string | undefined {
  const now = modelFields(config)
  for (const [field, name] of Object.entries(SPEC_FIELD)) {
    const [was, is] = [Reflect.get(saved, field), Reflect.get(now, field)]
    if (was !== is) return `spec.${name} ${was}, the job has ${is}`
  }
  return undefined
}

export const folderOf = (step: number) => `step-${String(step).padStart(8, '0')}`

/** Steps of all folders with a checkpoint's final name, newest first; none when the directory does not exist. */
export async function listSteps(directory: string): Promise<number[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names
    .flatMap(name => /^step-(\d{8,})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => b - a)
}

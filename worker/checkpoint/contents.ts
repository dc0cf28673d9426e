// The names of checkpoint folders, and their index.json. A checkpoint is complete when its folder
// has its final name. It is usable when the index and every file match their checksums.

import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ModelConfig } from '../model/config.ts'
import { Losses } from '../report/losses.ts'

export const INDEX = 'index.json'

const count = z.int().min(0)

const ModelFields = z.strictObject({
  kind: z.enum(['Dense', 'Top1', 'Top2', 'SharedExpert', 'ScMoE', 'DGMoE']),
  shortcutPosition: z.literal([1, 2, 3]),
  coefficientGate: z.enum(['DirectAdd', 'CG1', 'CG2']),
  units: count,
  blocksPerUnit: count,
  dim: count,
  heads: count,
  keyValueHeads: count,
  feedForward: count,
  vocabulary: count,
  tieEmbeddings: z.boolean(),
  bias: z.boolean(),
  norm: z.enum(['LayerNorm', 'RMSNorm']),
  activation: z.enum(['GELU', 'SwiGLU']),
  positions: z.enum(['Learned', 'RoPE']),
  experts: count,
  topK: count,
  sequence: count,
})
type ModelFields = z.infer<typeof ModelFields>

/** The name in the spec of each field that all checkpoints of one model agree on. */
const SPEC_FIELD: Record<keyof ModelFields, string> = {
  kind: 'model.kind',
  shortcutPosition: 'model.shortcutPosition',
  coefficientGate: 'model.coefficientGate',
  units: 'model.blocks / model.moeLayerFrequency',
  blocksPerUnit: 'model.moeLayerFrequency',
  dim: 'model.hiddenSize',
  heads: 'model.heads',
  keyValueHeads: 'model.keyValueHeads',
  feedForward: 'model.feedForwardSize',
  vocabulary: 'model.vocabularySize',
  tieEmbeddings: 'model.tieEmbeddings',
  bias: 'model.biases',
  norm: 'model.norm',
  activation: 'model.activation',
  positions: 'model.positions',
  experts: 'model.experts',
  topK: 'model.topK',
  sequence: 'training.sequenceLength',
}
const FIELDS = ModelFields.keyof().options

/**
 * The data that the model was trained on, and how the learning rate goes on. Without them a resumed
 * run could change either without a word. Checkpoints of older versions do not have them.
 */
export const Trained = z.object({
  data: z.object({
    /** A path, or `builtin` and the name of a text. */
    source: z.string(),
    tokens: z.enum(['bytes', 'uint16', 'uint32']),
    /** Tokens in the file. */
    length: count,
  }),
  /** The schedule of worker/train/learning-rate.ts. */
  learningRate: z.object({
    peak: z.number(),
    warmupSteps: count,
    totalSteps: count,
    from: count.optional(),
    reached: z.number().optional(),
  }),
})
export type Trained = z.infer<typeof Trained>

export const CheckpointIndex = z.object({
  version: z.literal(2),
  /**
   * Optimizer steps done. Together with the seed it fixes the data position and all random choices.
   */
  step: count,
  jobUid: z.string(),
  savedTime: z.string(),
  seed: count,
  globalBatchSequences: count,
  worldSize: count,
  expertParallelSize: count,
  model: ModelFields,
  losses: Losses,
  trained: Trained.optional(),
  /** Files in the same folder. */
  files: z.array(z.object({ name: z.string().regex(/^[\w.-]+$/), bytes: count, sha256: z.string() })),
  /** For each global tensor, the file (an index) with its elements start .. start + count - 1. */
  tensors: z.record(z.string(), z.array(z.object({ file: count, start: count, count }))),
})
export type CheckpointIndex = z.infer<typeof CheckpointIndex>

/** The checksum covers the content as written, in which the keys keep their order. */
const Sealed = z.object({ content: z.unknown(), sha256: z.string() })

const seal = (content: unknown) => createHash('sha256').update(JSON.stringify(content)).digest('hex')

export function encodeIndex(content: CheckpointIndex): string {
  return `${JSON.stringify({ content, sha256: seal(content) }, null, 1)}\n`
}

/** Reads and verifies `<folder>/index.json`; throws an error that says why it is not usable. */
export async function readIndex(folder: string): Promise<CheckpointIndex> {
  const json: unknown = JSON.parse(await readFile(join(folder, INDEX), 'utf8'))
  const { content, sha256 } = Sealed.parse(json)
  if (seal(content) !== sha256) throw new Error('its checksum differs: the file was changed or damaged')
  return CheckpointIndex.parse(content)
}

/** The fields that determine the name and shape of every tensor of the model. */
export function modelFields(config: ModelConfig): ModelFields {
  return ModelFields.parse(Object.fromEntries(FIELDS.map(field => [field, config[field]])))
}

/**
 * The first field in which a checkpoint's model differs from the job's, as text; undefined if none.
 */
export function modelDifference(saved: ModelFields, config: ModelConfig): string | undefined {
  const now = modelFields(config)
  const field = FIELDS.find(name => saved[name] !== now[name])
  return field && `spec.${SPEC_FIELD[field]} ${saved[field]}, the job has ${now[field]}`
}

export const folderOf = (step: number) => `step-${String(step).padStart(8, '0')}`

/** Steps of all complete checkpoints, newest first; none if the directory does not exist. */
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

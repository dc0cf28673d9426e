// The names of checkpoint folders, and their index.json. A checkpoint is complete when its folder
// has its final name. It is usable when the index and every file match their checksums.

import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { errnoCode, issuesText } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { Losses } from '../report/losses.ts'
import { openFile, readExactly } from './safetensors.ts'

export const INDEX = 'index.json'

/** A longer index is not read. That of 1024 ranks and 256 blocks is shorter. */
const MAX_INDEX = 256 << 20

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

const Content = z.object({
  version: z.literal(2),
  /**
   * Optimizer steps done. Together with the seed it fixes the data position and all random choices.
   */
  step: count,
  jobUid: z.string(),
  /** The attempt that wrote it. Undefined in an index without marks in its files. */
  attempt: count.optional(),
  savedTime: z.string(),
  seed: count,
  globalBatchSequences: count,
  worldSize: count,
  expertParallelSize: count,
  model: ModelFields,
  losses: Losses,
  trained: Trained.optional(),
  /** Files in the same folder. */
  files: z.array(
    z.object({
      name: z.string().regex(/^[\w-][\w.-]*\.safetensors$/),
      bytes: count,
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
  /** For each global tensor, the file (an index) with its elements start .. start + count - 1. */
  tensors: z.record(z.string(), z.array(z.object({ file: count, start: count, count }))),
})
export type CheckpointIndex = z.infer<typeof Content>
/** Keys that a later version adds stay, because the mark covers them. */
const CheckpointIndex = Content.loose()

/** The fields of an index that are known when its files are written. */
export type Identity = Omit<CheckpointIndex, 'savedTime' | 'losses' | 'files' | 'tensors'>

/**
 * The mark of a checkpoint, which all its files carry. It differs between checkpoints of different
 * steps, attempts, jobs or models, so a file of another checkpoint is found out.
 */
export function markOf(index: Identity & Partial<CheckpointIndex>): string {
  const later = new Set<string>(['savedTime', 'losses', 'files', 'tensors'])
  return digest(sorted(Object.fromEntries(Object.entries(index).filter(([key]) => !later.has(key)))))
}

/** The same value with the keys of all objects in order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([key, each]): [string, unknown] => [key, sorted(each)])
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

/** The checksum covers the content as written, in which the keys keep their order. */
const Sealed = z.object({ content: z.unknown(), sha256: z.string() })

const digest = (content: unknown) => createHash('sha256').update(JSON.stringify(content)).digest('hex')

export function encodeIndex(content: CheckpointIndex): string {
  return `${JSON.stringify({ content, sha256: digest(content) }, null, 1)}\n`
}

/** Reads and verifies `<folder>/index.json`; throws an error that says why it is not usable. */
export async function readIndex(folder: string): Promise<CheckpointIndex> {
  const json: unknown = JSON.parse(await readText(join(folder, INDEX)))
  const { content, sha256 } = checked(Sealed, json, 'the index')
  if (content === undefined || digest(content) !== sha256)
    throw new Error('its checksum differs: the file was changed or damaged')
  return checked(CheckpointIndex, content, 'content')
}

async function readText(path: string): Promise<string> {
  const file = await openFile(path)
  try {
    const { size } = await file.stat()
    if (size > MAX_INDEX) throw new Error(`it has ${size} bytes, more than an index can have`)
    return new TextDecoder().decode(await readExactly(file, 0, size))
  } finally {
    await file.close()
  }
}

function checked<T>(schema: z.ZodType<T>, value: unknown, root: string): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new Error(issuesText(parsed.error, value, root))
}

/**
 * Whether an error says that a checkpoint is damaged or incomplete, and not that this rank could
 * not read it.
 */
export function isDamage(error: unknown): boolean {
  const code = errnoCode(error)
  return code === undefined || code.startsWith('ERR_') || ['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP'].includes(code)
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
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names
    .flatMap(name => /^step-(\d{8,})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .filter(step => names.includes(folderOf(step)))
    .toSorted((a, b) => b - a)
}

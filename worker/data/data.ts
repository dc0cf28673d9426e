// Training data as tokens. The tokens of a sequence depend only on the seed, the step and the
// sequence's place in the global batch. So a batch is the same for any number of ranks, and a
// checkpoint needs no data position beside its step.

import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ENV } from '../../crds/contract.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { errnoText, WorkerFailure } from '../failure.ts'
import { type CorpusName, corpusText } from './corpora.ts'
import { TokenFile, type TokenType } from './token-file.ts'

/** The part of the text that a batch is drawn from. The last tenth is for validation. */
export type Split = 'train' | 'validation'

/** Sequences `first` .. `first + count - 1` of the global batch of a step. */
export interface Slice {
  split: Split
  seed: number
  step: number
  globalBatch: number
  first: number
  count: number
}

type Source = Pick<ScMoEJobSpec['data'], 'builtin' | 'path'>

/**
 * The file that `spec.data` means. A built-in text is looked for in `dataDirectory`; if that is not
 * given, in `fallbackFolder`, which gets the text from the installed corpora if it lacks it.
 */
export function dataPath(data: Source, dataDirectory: string | undefined, fallbackFolder: string): string {
  if (data.path !== undefined) return data.path
  const name = data.builtin ?? 'moby-dick'
  const path = join(dataDirectory ?? fallbackFolder, `${name}.txt`)
  if (dataDirectory === undefined && !existsSync(path)) extractCorpus(name, fallbackFolder)
  return path
}

/** Writes a corpus as a text file. Two ranks may do so at the same time. */
export function extractCorpus(name: CorpusName, folder: string): void {
  try {
    const temporary = join(folder, `.${name}.${process.pid}.tmp`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(temporary, corpusText(name))
    renameSync(temporary, join(folder, `${name}.txt`))
  } catch (error) {
    throw new WorkerFailure(
      'badData',
      `The built-in text ${name} cannot be put into ${folder} (${errnoText(error)}): run npm ci, or set ${ENV.dataDirectory} to a folder with ${name}.txt.`,
    )
  }
}

export interface DataOptions {
  /** `spec.data.tokens`: what the file holds. */
  tokens: TokenType
  /** Every token of the file must be smaller than this. */
  vocabulary: number
  sequenceLength: number
}

/** A file of tokens. Only the parts that are asked for are read into memory. */
export class TokenData {
  readonly #file: TokenFile
  readonly #sequenceLength: number
  readonly #range: Record<Split, { start: number; length: number }>

  /**
   * Throws a `badData` failure if the file cannot be read, or if a split is shorter than one
   * sequence and its last target.
   */
  constructor(path: string, options: DataOptions) {
    const { sequenceLength } = options
    this.#sequenceLength = sequenceLength
    this.#file = new TokenFile(path, options)
    const { length, unit } = this.#file
    const held = Math.floor(length / 10)
    if (held < sequenceLength + 1) {
      throw new WorkerFailure(
        'badData',
        `The data ${path} has ${length} ${unit}${length === 0 ? ' (it is empty)' : ''}; spec.training.sequenceLength ${sequenceLength} needs at least ${10 * (sequenceLength + 1)}, because a tenth is held out for evaluation: use a longer text or shorter sequences.`,
      )
    }
    this.#range = { train: { start: 0, length: length - held }, validation: { start: length - held, length: held } }
  }

  get path(): string {
    return this.#file.path
  }

  /** The kind of file that its beginning looks like. */
  get look(): TokenFile['look'] {
    return this.#file.look
  }

  /** Tokens in the file. */
  get length(): number {
    return this.#file.length
  }

  /**
   * Fills tokens, i32 [count, sequenceLength + 1]. The inputs are all columns but the last, the
   * targets all columns but the first.
   */
  readInto(tokens: Int32Array, slice: Slice): void {
    const columns = this.#sequenceLength + 1
    const { start, length } = this.#range[slice.split]
    for (let i = 0; i < slice.count; i++) {
      const index = BigInt(slice.step) * BigInt(slice.globalBatch) + BigInt(slice.first + i)
      const place = start + randomBelow(length - columns + 1, { seed: slice.seed, stream: slice.split, index })
      this.#file.read(tokens.subarray(i * columns, (i + 1) * columns), place)
    }
  }

  close(): void {
    this.#file.close()
  }
}

const STREAM: Record<Split, bigint> = { train: 0n, validation: 1n }
const MASK = (1n << 64n) - 1n

/**
 * splitmix64's finaliser (Steele, Lea and Flood, 2014): a bijection of 64 bits without visible
 * structure.
 */
function mix(value: bigint): bigint {
  let z = (value + 0x9e3779b97f4a7c15n) & MASK
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK
  return z ^ (z >> 31n)
}

/** The number in [0, limit) at place `index` of a stream; needs none of the numbers before it. */
export function randomBelow(limit: number, at: { seed: number; stream: Split; index: bigint }): number {
  const key = mix((BigInt(at.seed) << 1n) | STREAM[at.stream])
  return Number((mix(key ^ mix(at.index)) * BigInt(limit)) >> 64n)
}

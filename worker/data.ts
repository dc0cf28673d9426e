// Training text as byte tokens. Which bytes make up a sequence depends on the seed, the step and the sequence's place in the global batch alone,
// so that a batch is the same whatever the number of ranks, and the data position of a checkpoint is its step.

import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { type CorpusName, corpusText } from './data-builtin.ts'
import { errnoText, WorkerFailure } from './failure.ts'

/** Which part of the text a batch is drawn from; the last tenth is held out. */
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

/** Finds the file that `spec.data` means. `fallbackFolder` is filled from the installed corpora when it lacks the text. */
export function dataPath(
  data: ScMoEJobSpec['data'],
  dataDirectory: string | undefined,
  fallbackFolder: string,
): string {
  if (data.path !== undefined) return data.path
  const name = data.builtin ?? 'moby-dick'
  const path = join(dataDirectory ?? fallbackFolder, `${name}.txt`)
  if (dataDirectory === undefined && !existsSync(path)) extractCorpus(name, fallbackFolder)
  return path
}

/** Writes a corpus as a text file; two ranks may do so at the same time. */
export function extractCorpus(name: CorpusName, folder: string): void {
  try {
    const temporary = join(folder, `.${name}.${process.pid}.tmp`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(temporary, corpusText(name))
    renameSync(temporary, join(folder, `${name}.txt`))
  } catch (error) {
    throw new WorkerFailure(
      'badData',
      `The built-in text ${name} cannot be put into ${folder} (${errnoText(error)}): run npm ci, or set SCMOE_DATA_DIRECTORY to a folder with ${name}.txt.`,
    )
  }
}

/** A text file, read by position: its size does not matter to memory. */
export class TextData {
  readonly path: string
  readonly #file: number
  readonly #sequenceLength: number
  readonly #range: Record<Split, { start: number; length: number }>

  /** Throws a `badData` failure when the file cannot be read or either part is shorter than one sequence and its last target. */
  constructor(path: string, sequenceLength: number) {
    this.path = path
    this.#sequenceLength = sequenceLength
    let bytes: number
    try {
      this.#file = openSync(path, 'r')
      const stat = fstatSync(this.#file)
      if (!stat.isFile()) throw new Error(stat.isDirectory() ? 'it is a folder' : 'it is not a regular file')
      bytes = stat.size
      readSync(this.#file, new Uint8Array(1), { position: 0 })
    } catch (error) {
      throw new WorkerFailure(
        'badData',
        `The data ${path} cannot be read: ${errnoText(error)}. Check spec.data and what is mounted there.`,
      )
    }
    const held = Math.floor(bytes / 10)
    const need = 10 * (sequenceLength + 1)
    if (held < sequenceLength + 1) {
      throw new WorkerFailure(
        'badData',
        `The data ${path} has ${bytes} bytes${bytes === 0 ? ' (it is empty)' : ''}; spec.training.sequenceLength ${sequenceLength} needs at least ${need}, because a tenth is held out for evaluation: use a longer text or shorter sequences.`,
      )
    }
    this.#range = { train: { start: 0, length: bytes - held }, validation: { start: bytes - held, length: held } }
  }

  /** Fills tokens, i32 [count, sequenceLength + 1]: inputs are the first columns of a row, targets its last. */
  readInto(tokens: Int32Array, slice: Slice): void {
    const columns = this.#sequenceLength + 1
    const { start, length } = this.#range[slice.split]
    const row = new Uint8Array(columns)
    for (let i = 0; i < slice.count; i++) {
      const index = BigInt(slice.step) * BigInt(slice.globalBatch) + BigInt(slice.first + i)
      const offset = start + randomBelow(length - columns + 1, { seed: slice.seed, stream: slice.split, index })
      this.#read(row, offset)
      tokens.set(row, i * columns)
    }
  }

  close(): void {
    closeSync(this.#file)
  }

  #read(row: Uint8Array, offset: number): void {
    let got = 0
    try {
      got = readSync(this.#file, row, { position: offset })
    } catch (error) {
      throw new WorkerFailure('badData', `Reading ${this.path} at byte ${offset} failed: ${errnoText(error)}.`)
    }
    if (got < row.length) {
      throw new WorkerFailure(
        'badData',
        `${this.path} ended at byte ${offset + got}: it was shortened while it was being read.`,
      )
    }
  }
}

const STREAM: Record<Split, bigint> = { train: 0n, validation: 1n }
const MASK = (1n << 64n) - 1n

/** splitmix64's finaliser (Steele, Lea and Flood, 2014): a bijection of 64 bits without visible structure. */
function mix(value: bigint): bigint {
  let z = (value + 0x9e3779b97f4a7c15n) & MASK
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK
  return z ^ (z >> 31n)
}

/** The number in [0, limit) at place `index` of a stream: counter-based, so any place can be had without those before it. */
export function randomBelow(limit: number, at: { seed: number; stream: Split; index: bigint }): number {
  const key = mix((BigInt(at.seed) << 1n) | STREAM[at.stream])
  return Number((mix(key ^ mix(at.index)) * BigInt(limit)) >> 64n)
}

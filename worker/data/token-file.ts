// A file of tokens: text, in which each byte is a token, or little-endian numbers. Every token that
// is read is checked against the vocabulary.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { errnoText, WorkerFailure } from '../failure.ts'
import { LOOKED_AT, type Look, looksLike } from './look.ts'

export type TokenType = ScMoEJobSpec['data']['tokens']

const BYTES: Readonly<Record<TokenType, 1 | 2 | 4>> = { bytes: 1, uint16: 2, uint32: 4 }

/** Failures are `badData` and name the file, the byte and the value. */
export class TokenFile {
  readonly path: string
  /** Tokens in the file. */
  readonly length: number
  /** The kind of file that its beginning looks like. */
  readonly look: Look
  readonly #file: number
  readonly #type: TokenType
  readonly #vocabulary: number

  constructor(path: string, { tokens, vocabulary }: { tokens: TokenType; vocabulary: number }) {
    this.path = path
    this.#type = tokens
    this.#vocabulary = vocabulary
    let bytes: number
    try {
      this.#file = openSync(path, 'r')
      const stat = fstatSync(this.#file)
      if (!stat.isFile()) throw new Error(stat.isDirectory() ? 'it is a folder' : 'it is not a regular file')
      bytes = stat.size
      const begin = new Uint8Array(Math.max(1, Math.min(bytes, LOOKED_AT)))
      this.look = looksLike(begin.subarray(0, readSync(this.#file, begin, { position: 0 })))
    } catch (error) {
      throw new WorkerFailure(
        'badData',
        `The data ${path} cannot be read: ${errnoText(error)}. Check spec.data and what is mounted there.`,
      )
    }
    const width = BYTES[tokens]
    if (bytes % width !== 0) {
      throw new WorkerFailure(
        'badData',
        `The data ${path} has ${bytes} bytes, which is not a multiple of the ${width} that each token of spec.data.tokens ${tokens} takes: the file was cut short, or holds something else.`,
      )
    }
    this.length = bytes / width
    if (tokens !== 'bytes' && this.look === 'text') {
      throw new WorkerFailure(
        'badData',
        `The data ${path} is text, but spec.data.tokens is ${tokens}: give the file of token numbers that a tokenizer wrote, or use tokens bytes.`,
      )
    }
  }

  /** The unit of `length`, for messages. */
  get unit(): string {
    return this.#type === 'bytes' ? 'bytes' : `${this.#type} tokens`
  }

  /** Fills `tokens` from the file's token `start` on. */
  read(tokens: Int32Array, start: number): void {
    const width = BYTES[this.#type]
    const bytes = new Uint8Array(tokens.length * width)
    this.#readBytes(bytes, start * width)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < tokens.length; i++) {
      const token = tokenAt(view, i * width, width)
      if (token >= this.#vocabulary) this.#refuse(token, (start + i) * width)
      tokens[i] = token
    }
  }

  close(): void {
    closeSync(this.#file)
  }

  #readBytes(bytes: Uint8Array, position: number): void {
    let got = 0
    try {
      while (got < bytes.length) {
        const more = readSync(this.#file, bytes, got, bytes.length - got, position + got)
        if (more === 0) break
        got += more
      }
    } catch (error) {
      throw new WorkerFailure('badData', `Reading ${this.path} at byte ${position} failed: ${errnoText(error)}.`)
    }
    if (got === bytes.length) return
    throw new WorkerFailure(
      'badData',
      `${this.path} ended at byte ${position + got}: it was shortened while it was being read.`,
    )
  }

  #refuse(token: number, byte: number): never {
    throw new WorkerFailure(
      'badData',
      `The data ${this.path} holds the token ${token} at byte ${byte}, but spec.model.vocabularySize is ${this.#vocabulary}: raise it, or check that spec.data.tokens ${this.#type} is what the file holds.`,
    )
  }
}

function tokenAt(view: DataView, byte: number, width: 1 | 2 | 4): number {
  if (width === 1) return view.getUint8(byte)
  return width === 2 ? view.getUint16(byte, true) : view.getUint32(byte, true)
}

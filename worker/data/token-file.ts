// A file of tokens: text, in which each byte is a token, or little-endian numbers. Every token that
// is read is checked against the vocabulary.

import { closeSync, constants, fstatSync, openSync, read, readSync, type Stats } from 'node:fs'
import { promisify } from 'node:util'
import { WorkerFailure } from '../failure.ts'
import { LOOKED_AT, type Look, looksLike } from './look.ts'
import { answered, readFailure } from './storage.ts'
import { firstAtLeast, guessTypes, numbersIn, type TokenType, typeText, WIDTH } from './token-types.ts'

export interface TokenFileOptions {
  tokens: TokenType
  /** Every token must be smaller than this. */
  vocabulary: number
}

/** Tokens `first` to `end - 1` of a file, all of which the vocabulary has. */
export interface Checked {
  first: number
  end: number
  bytesPerSecond: number
}

const CHUNK_BYTES = 4 << 20

/** Failures name the file, the place, the value and what to do. */
export class TokenFile {
  readonly path: string
  /** Tokens in the file. */
  readonly length: number
  /** The kind of file that its beginning looks like. */
  readonly look: Look
  readonly #file: number
  readonly #type: TokenType
  readonly #vocabulary: number
  readonly #opened: Stats

  constructor(path: string, { tokens, vocabulary }: TokenFileOptions) {
    this.path = path
    this.#type = tokens
    this.#vocabulary = vocabulary
    try {
      // Without O_NONBLOCK, opening a named pipe would wait for a writer.
      this.#file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
      this.#opened = fstatSync(this.#file)
      if (!this.#opened.isFile())
        throw new Error(this.#opened.isDirectory() ? 'it is a folder' : 'it is not a regular file')
      const begin = new Uint8Array(Math.max(1, Math.min(this.#opened.size, LOOKED_AT)))
      this.look = looksLike(begin.subarray(0, readSync(this.#file, begin, { position: 0 })))
    } catch (error) {
      throw readFailure(`The data ${path} cannot be read`, error)
    }
    const bytes = this.#opened.size
    const width = WIDTH[tokens]
    if (bytes % width !== 0) {
      throw new WorkerFailure(
        'badData',
        `The data ${path} has ${bytes} bytes, which is not a multiple of the ${width} that each token of spec.data.tokens ${tokens} takes: the file was cut short, or holds something else. Write the file anew, or create a new job with the spec.data.tokens that the file has.`,
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
    const width = WIDTH[this.#type]
    const bytes = new Uint8Array(tokens.length * width)
    this.#readBytes(bytes, start * width)
    const numbers = numbersIn(bytes, width)
    const wrong = firstAtLeast(numbers, this.#vocabulary)
    if (wrong >= 0) this.#refuse(numbers[wrong] ?? 0, start + wrong)
    tokens.set(numbers)
  }

  /**
   * Reads one of `parts` equal parts of the file and throws if it holds a token that the vocabulary
   * lacks, or numbers of another width. The process can do other work between the pieces that it
   * reads.
   */
  async check(part: number, parts: number, signal?: AbortSignal): Promise<Checked> {
    const first = Math.floor((this.length * part) / parts)
    const end = Math.floor((this.length * (part + 1)) / parts)
    const started = performance.now()
    const width = WIDTH[this.#type]
    this.#refuseOtherWidth()
    if (this.#vocabulary < 256 ** width) await this.#checkTokens(first, end, signal)
    const bytes = (end - first) * width
    return { first, end, bytesPerSecond: Math.round((1000 * bytes) / Math.max(1, performance.now() - started)) }
  }

  close(): void {
    closeSync(this.#file)
  }

  /** Looks at one piece while the next one is read. */
  async #checkTokens(first: number, end: number, signal: AbortSignal | undefined): Promise<void> {
    const width = WIDTH[this.#type]
    const piece = CHUNK_BYTES / width
    const load = (start: number) => this.#readLater(start, Math.min(piece, end - start))
    let next = load(first)
    for (let start = first; start < end; start += piece) {
      const numbers = numbersIn(await next, width)
      if (start + piece < end) next = load(start + piece)
      const wrong = firstAtLeast(numbers, this.#vocabulary)
      if (wrong < 0 && !signal?.aborted) continue
      await next.catch(() => undefined)
      if (wrong < 0) return
      this.#refuse(numbers[wrong] ?? 0, start + wrong)
    }
  }

  async #readLater(start: number, count: number): Promise<Uint8Array> {
    const width = WIDTH[this.#type]
    const bytes = new Uint8Array(count * width)
    const later = promisify(read)
    let got = 0
    while (got < bytes.length) {
      const position = start * width + got
      const reading = later(this.#file, bytes, got, bytes.length - got, position).catch((error: unknown) => {
        throw readFailure(`Reading ${this.path} at byte ${position} failed`, error)
      })
      const { bytesRead } = await answered(reading, `Reading ${this.path} at byte ${position}`)
      if (bytesRead === 0) this.#refuseShort(position)
      got += bytesRead
    }
    return bytes
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
      throw readFailure(`Reading ${this.path} at byte ${position} failed`, error)
    }
    if (got < bytes.length) this.#refuseShort(position + got)
  }

  #refuseShort(byte: number): never {
    throw new WorkerFailure(
      'badData',
      `${this.path} ended at byte ${byte}, but had ${this.#opened.size} bytes when it was opened: it was shortened while it was being read. Put the whole file back and create the job again; it continues from its last checkpoint.`,
    )
  }

  /** 16-bit numbers cannot be a file of 32-bit numbers that merely fits. */
  #refuseOtherWidth(): void {
    if (this.#type !== 'uint16' || this.#vocabulary <= 65_536) return
    const sample = new Uint8Array(Math.min(this.#opened.size, 1 << 16) & ~3)
    this.#readBytes(sample, 0)
    if (!guessTypes(sample, this.#vocabulary).includes('uint32')) return
    throw new WorkerFailure(
      'badData',
      `The data ${this.path} holds uint32 tokens, but spec.data.tokens is uint16: of its first ${sample.length / 2} numbers every second one is below ${Math.ceil(this.#vocabulary / 65_536)}, and spec.model.vocabularySize ${this.#vocabulary} is more than 16 bits can tell apart. Create a new job with spec.data.tokens uint32.`,
    )
  }

  #refuse(token: number, place: number): never {
    const byte = place * WIDTH[this.#type]
    const now = fstatSync(this.#file)
    const changed =
      now.mtimeMs === this.#opened.mtimeMs && now.size === this.#opened.size
        ? ''
        : ` The file was changed at ${now.mtime.toISOString()}, after it was opened.`
    const sample = new Uint8Array(Math.min(now.size, 1 << 16) & ~3)
    this.#readBytes(sample, 0)
    const others = guessTypes(sample, this.#vocabulary).filter(type => type !== this.#type)
    const guess = others.length > 0 ? ` The file looks like ${others.map(typeText).join(' or ')}.` : ''
    throw new WorkerFailure(
      'badData',
      `The data ${this.path} holds the token ${token} at place ${place} (byte ${byte}), but spec.model.vocabularySize is ${this.#vocabulary}: tokens are 0 to ${this.#vocabulary - 1}.${changed}${guess} Correct the file, or create a new job: with spec.model.vocabularySize ${token + 1} or more, or with another spec.data.tokens than ${this.#type}. Both fields are fixed in a job that exists.`,
    )
  }
}

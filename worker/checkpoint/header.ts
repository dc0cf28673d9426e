// The header of a safetensors file. It is read without JSON.parse, which keeps the last of two
// equal keys and makes an object of whatever is there. Here a header is refused unless each key is
// there once and the tensors fill the file without gaps. Time and memory grow with its length
// alone. Pure.

export interface Entry {
  /** The type's name in safetensors: F32, BF16, ... */
  dtype: string
  shape: number[]
  /** Bytes from the start of the file. */
  start: number
  end: number
}

export interface Header {
  entries: Map<string, Entry>
  metadata: Record<string, string>
}

/** The format allows no longer header. */
export const MAX_HEADER = 100 << 20
/** The key in a header that is no tensor. */
export const METADATA = '__metadata__'
/** No program makes tensors with more axes. */
const MAX_AXES = 64

const TYPES =
  'F64 I64 U64 C64 F32 I32 U32 F16 BF16 I16 U16 I8 U8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ F6_E2M3 F6_E3M2 F4'
/** Bits of an element, by type. */
const BITS = new Map([
  ['BOOL', 8],
  ...TYPES.split(' ').map((name): [string, number] => [name, Number(/\d+/.exec(name))]),
])

/** Number of elements of a shape. */
const elementsOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)

/**
 * Reads a header from its bytes. The file has `size` bytes, of which the data begin at `dataStart`.
 * Throws an error that says what is wrong with the file.
 */
export function parseHeader(bytes: Uint8Array, { dataStart, size }: { dataStart: number; size: number }): Header {
  const json = new HeaderText(decoded(bytes))
  const entries = new Map<string, Entry>()
  let metadata: Map<string, string> | undefined
  json.object(key => {
    if (key === METADATA) {
      if (metadata !== undefined) throw json.twice(key)
      metadata = readMetadata(json)
    } else {
      if (entries.has(key)) throw json.twice(key)
      entries.set(key, readEntry(json, key, dataStart))
    }
  })
  json.end()
  demandFilled(entries, { dataStart, size })
  return { entries, metadata: Object.fromEntries(metadata ?? []) }
}

function decoded(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new Error('its header is not UTF-8')
  }
}

/** Python's library reads null as no metadata, and some programs write it. */
function readMetadata(json: HeaderText): Map<string, string> {
  const metadata = new Map<string, string>()
  if (json.took('null')) return metadata
  json.object(key => {
    if (metadata.has(key)) throw json.twice(key)
    metadata.set(key, json.string())
  })
  return metadata
}

function readEntry(json: HeaderText, name: string, dataStart: number): Entry {
  let dtype: string | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  json.object(key => {
    if (key === 'dtype' && dtype === undefined) dtype = json.string()
    else if (key === 'shape' && shape === undefined) shape = json.integers(MAX_AXES)
    else if (key === 'data_offsets' && offsets === undefined) offsets = json.integers(2)
    else throw json.twice(key, ['dtype', 'shape', 'data_offsets'])
  })
  const [start, end] = offsets ?? []
  if (dtype === undefined || shape === undefined || start === undefined || end === undefined)
    throw new Error(`tensor ${shown(name)} has no dtype, no shape or no two data_offsets in its header`)
  const bits = BITS.get(dtype)
  if (bits === undefined)
    throw new Error(`tensor ${shown(name)} has the type ${shown(dtype)}, which safetensors does not have`)
  if (end < start || 8 * (end - start) !== bits * elementsOf(shape)) {
    throw new Error(
      `tensor ${shown(name)} does not have the bytes its shape needs: ${dtype} [${shape.join(', ')}] has data_offsets ${start} to ${end}`,
    )
  }
  return { dtype, shape, start: dataStart + start, end: dataStart + end }
}

/** Throws unless the tensors lie end to end from the start of the data to the end of the file. */
function demandFilled(entries: ReadonlyMap<string, Entry>, { dataStart, size }: { dataStart: number; size: number }) {
  let last = { name: '', end: dataStart }
  for (const [name, { start, end }] of [...entries].toSorted(([, a], [, b]) => a.start - b.start || a.end - b.end)) {
    const after = last.name === '' ? 'the data begin' : `tensor ${shown(last.name)} ends`
    if (start < last.end)
      throw new Error(`tensor ${shown(name)} overlaps: it begins ${last.end - start} bytes before ${after}`)
    if (start > last.end)
      throw new Error(`there is a gap: tensor ${shown(name)} begins ${start - last.end} bytes after ${after}`)
    last = { name, end }
  }
  if (last.end > size) throw new Error(`it is cut short: its tensors need ${last.end} bytes, and it has ${size}`)
  if (last.end < size) throw new Error(`its last ${size - last.end} bytes belong to no tensor`)
}

/** A name as an error shows it, on one line and not too long. */
const shown = (name: string) => (/^[\w.-]{1,80}$/.test(name) ? name : JSON.stringify(name.slice(0, 80)))

const QUOTE = 0x22
const BACKSLASH = 0x5c
const ZERO = 0x30
/** Matches a string that has escapes, or characters that JSON may not allow in a string. */
const SPECIAL = /[\\\p{Cc}]/u
const isSpace = (code: number) => code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09
const isDigit = (code: number) => code >= ZERO && code <= 0x39

/** A position in the text of a header, which moves on with each value that is read. */
class HeaderText {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
    if (!text.startsWith('{')) throw this.#bad('{')
  }

  /** Reads an object; `member` reads the value of each key. */
  object(member: (key: string) => void): void {
    this.#take('{')
    if (this.took('}')) return
    do {
      const key = this.string()
      this.#take(':')
      member(key)
    } while (this.took(','))
    this.#take('}')
  }

  string(): string {
    this.#skip()
    const start = this.#at
    if (this.#text.charCodeAt(start) !== QUOTE) throw this.#bad('a string')
    const end = this.#text.indexOf('"', start + 1)
    if (end < 0) throw this.#bad('a string')
    const value = this.#text.slice(start + 1, end)
    if (SPECIAL.test(value)) return this.#unescaped()
    this.#at = end + 1
    return value
  }

  /** Reads an array of at most `most` integers from 0. */
  integers(most: number): number[] {
    const list: number[] = []
    this.#take('[')
    if (this.took(']')) return list
    do {
      if (list.length === most) throw this.#bad(`at most ${most} numbers`)
      list.push(this.#integer())
    } while (this.took(','))
    this.#take(']')
    return list
  }

  /** Whether `word` comes next; if so, it is read. */
  took(word: string): boolean {
    this.#skip()
    // Comparing the first character alone is much faster where most answers are no.
    if (this.#text.charCodeAt(this.#at) !== word.charCodeAt(0)) return false
    if (word.length > 1 && !this.#text.startsWith(word, this.#at)) return false
    this.#at += word.length
    return true
  }

  /** Throws unless only space is left. */
  end(): void {
    this.#skip()
    if (this.#at < this.#text.length) throw this.#bad('its end')
  }

  twice(key: string, known: readonly string[] = [key]): Error {
    const what = known.includes(key) ? 'is there twice' : `is none of ${known.join(', ')}`
    return new Error(`the key ${shown(key)} in its header ${what}`)
  }

  #integer(): number {
    this.#skip()
    const start = this.#at
    let value = 0
    for (let code = this.#text.charCodeAt(start); isDigit(code); code = this.#text.charCodeAt(++this.#at))
      value = 10 * value + (code - ZERO)
    const digits = this.#at - start
    if (digits > 0 && (digits === 1 || this.#text.charCodeAt(start) !== ZERO) && Number.isSafeInteger(value))
      return value
    this.#at = start
    throw this.#bad('an integer from 0 to 2^53 - 1')
  }

  /** Reads a string with escapes. */
  #unescaped(): string {
    const start = this.#at
    let end = start + 1
    for (; end < this.#text.length && this.#text.charCodeAt(end) !== QUOTE; end++)
      if (this.#text.charCodeAt(end) === BACKSLASH) end++
    try {
      const value: unknown = JSON.parse(this.#text.slice(start, end + 1))
      if (typeof value === 'string' && value.isWellFormed()) {
        this.#at = end + 1
        return value
      }
    } catch {
      // The error below says where the text is.
    }
    throw this.#bad('a string')
  }

  #take(char: string): void {
    if (!this.took(char)) throw this.#bad(char)
  }

  #skip(): void {
    while (isSpace(this.#text.charCodeAt(this.#at))) this.#at++
  }

  #bad(wanted: string): Error {
    const found = JSON.stringify(this.#text.slice(this.#at, this.#at + 20))
    return new Error(
      `its header is not the JSON of safetensors: at character ${this.#at} ${found} stands for ${wanted}`,
    )
  }
}

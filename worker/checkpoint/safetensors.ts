// The safetensors format, which Python's `safetensors` opens: 8 bytes with the length of the header
// (little endian), the header as JSON, then the tensors' bytes without gaps. Files are read and
// written in place, without a copy of the tensors, and hashed with SHA-256 on the way.

import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { type Header, MAX_HEADER, METADATA, parseHeader } from './header.ts'

export interface Tensor {
  name: string
  shape: readonly number[]
  data: Float32Array
}

export interface Written {
  bytes: number
  sha256: string
}

const CHUNK = 4 << 20

/** Writes and fsyncs a new file; fails if the file exists. */
export async function writeSafetensors(
  path: string,
  tensors: readonly Tensor[],
  metadata: Record<string, string>,
): Promise<Written> {
  const head = encodeHeader(tensors, metadata)
  const hash = createHash('sha256')
  const file = await open(path, 'wx')
  try {
    let bytes = 0
    for (const part of [head, ...tensors.map(tensor => bytesOf(tensor.data))]) {
      for (let at = 0; at < part.length; at += CHUNK) {
        const chunk = part.subarray(at, at + CHUNK)
        hash.update(chunk)
        await writeAll(file, chunk)
      }
      bytes += part.length
    }
    await file.sync()
    return { bytes, sha256: hash.digest('hex') }
  } finally {
    await file.close()
  }
}

/** Reads the header of an open file. Throws if it is malformed or if a tensor is not of F32. */
export async function readHeader(file: FileHandle): Promise<Header> {
  const header = await readHeaderOfAny(file)
  for (const [name, { dtype }] of header.entries)
    if (dtype !== 'F32') throw new Error(`tensor ${name} is of ${dtype}, not of F32`)
  return header
}

/** Reads the header of an open file whose tensors may be of any type. Throws if it is malformed. */
export async function readHeaderOfAny(file: FileHandle): Promise<Header> {
  const { size } = await file.stat()
  const length = size < 8 ? 0 : Number(new DataView((await readExactly(file, 0, 8)).buffer).getBigUint64(0, true))
  if (length < 2 || length > MAX_HEADER || length > size - 8)
    throw new Error('not a safetensors file: its header does not fit')
  return parseHeader(await readExactly(file, 8, length), { dataStart: 8 + length, size })
}

/**
 * Opens a file to read it. Throws if it is not a regular file: opening a pipe would wait for ever.
 */
export async function openFile(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  if ((await file.stat()).isFile()) return file
  await file.close()
  throw new Error('it is not a regular file')
}

/** Reads `target.length` values from `start` bytes into the file. */
export async function readFloats(file: FileHandle, start: number, target: Float32Array): Promise<void> {
  const bytes = bytesOf(target)
  for (let at = 0; at < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, at, Math.min(CHUNK, bytes.length - at), start + at)
    if (bytesRead === 0) throw new Error(`the file ended ${bytes.length - at} bytes early`)
    at += bytesRead
  }
}

/** SHA-256 of a whole open file. */
export async function hashFile(file: FileHandle): Promise<Written> {
  const hash = createHash('sha256')
  const chunk = new Uint8Array(CHUNK)
  let bytes = 0
  for (;;) {
    const { bytesRead } = await file.read(chunk, 0, CHUNK, bytes)
    if (bytesRead === 0) return { bytes, sha256: hash.digest('hex') }
    hash.update(chunk.subarray(0, bytesRead))
    bytes += bytesRead
  }
}

/** The bytes of a file before those of the tensors, which follow in the given order. */
export function encodeHeader(tensors: readonly Tensor[], metadata: Record<string, string>): Uint8Array {
  // Entries of a Map, because assigning the key `__proto__` to an object would set no property.
  const header = new Map<string, unknown>([[METADATA, metadata]])
  let offset = 0
  for (const { name, shape, data } of tensors) {
    const elements = shape.reduce((product, n) => product * n, 1)
    if (elements !== data.length)
      throw new Error(`tensor ${name}: shape ${shape.join('x')} does not hold ${data.length} values`)
    if (header.has(name)) throw new Error(`tensor ${name}: two tensors cannot have this name`)
    header.set(name, { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] })
    offset += data.byteLength
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)))
  const padded = Math.ceil(json.length / 8) * 8
  if (padded > MAX_HEADER) throw new Error(`a header of ${padded} bytes is longer than safetensors allows`)
  const bytes = new Uint8Array(8 + padded).fill(0x20, 8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true)
  bytes.set(json, 8)
  return bytes
}

/**
 * The memory of the values as bytes. All supported machines are little endian, as the format is.
 */
function bytesOf(data: Float32Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten
}

/** Reads `length` bytes from `position` on. Throws if the file ends before. */
export async function readExactly(
  file: FileHandle,
  position: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(bytes, at, length - at, position + at)
    if (bytesRead === 0) throw new Error(`the file ended ${length - at} bytes early`)
    at += bytesRead
  }
  return bytes
}

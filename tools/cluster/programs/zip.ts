// Reads one file out of a zip archive (PKWARE APPNOTE 6.3.10, without zip64 and encryption).

import { inflateRawSync } from 'node:zlib'

const END = 0x06_05_4b_50
const CENTRAL = 0x02_01_4b_50
const END_BYTES = 22
const STORED = 0
const DEFLATED = 8

export function unzip(archive: Buffer, wanted: string): Buffer {
  let end = archive.length - END_BYTES
  while (end >= 0 && archive.readUInt32LE(end) !== END) end--
  if (end < 0) throw new Error('not a zip archive: it has no central directory')
  let at = archive.readUInt32LE(end + 16)
  for (let left = archive.readUInt16LE(end + 10); left > 0; left--) {
    if (archive.readUInt32LE(at) !== CENTRAL) throw new Error(`zip archive: no directory entry at byte ${at}`)
    const nameLength = archive.readUInt16LE(at + 28)
    if (archive.toString('utf8', at + 46, at + 46 + nameLength) === wanted) return content(archive, at)
    at += 46 + nameLength + archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32)
  }
  throw new Error(`zip archive: no file '${wanted}'`)
}

function content(archive: Buffer, entry: number): Buffer {
  const method = archive.readUInt16LE(entry + 10)
  const size = archive.readUInt32LE(entry + 20)
  const local = archive.readUInt32LE(entry + 42)
  const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28)
  const data = archive.subarray(start, start + size)
  if (method === STORED) return data
  if (method === DEFLATED) return inflateRawSync(data)
  throw new Error(`zip archive: compression method ${method} is not supported`)
}

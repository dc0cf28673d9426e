// Tests of reading and writing the safetensors format.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseHeader } from '../../../worker/checkpoint/header.ts'
import {
  hashFile,
  openFile,
  readFloats,
  readHeader,
  readHeaderOfAny,
  writeSafetensors,
} from '../../../worker/checkpoint/safetensors.ts'
import { safetensorsBytes } from '../../support/files/bytes.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'scmoe-safetensors-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** Reads the header of a file with these bytes. */
async function headerOf(bytes: Uint8Array, read = readHeader) {
  const path = join(folder, `${Math.random()}`)
  writeFileSync(path, bytes)
  const file = await open(path)
  try {
    return await read(file)
  } finally {
    await file.close()
  }
}

// Seen failing with a tensor named `__proto__`, which the writer and the reader dropped.
test('what is written is read, the header as the format says', async () => {
  const shape = fc.array(fc.nat(5), { maxLength: 3 })
  const name = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('__proto__', 'constructor', '0', '"', '\n'))
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.tuple(name, shape), { selector: ([each]) => each, maxLength: 5 }),
      async list => {
        fc.pre(list.every(([each]) => each !== '__metadata__'))
        const path = join(folder, `${Math.random()}`)
        const made = list.map(([each, dims], t) => ({
          name: each,
          shape: dims,
          data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => t + i / 3),
        }))
        const written = await writeSafetensors(path, made, { key: 'value', ['__proto__']: 'p' })
        const bytes = readFileSync(path)
        const length = Number(bytes.readBigUInt64LE(0))
        expect(length % 8).toBe(0)
        const header: object = JSON.parse(bytes.subarray(8, 8 + length).toString())
        expect(Object.keys(header)).toHaveLength(1 + made.length)
        const file = await openFile(path)
        expect(await hashFile(file)).toEqual(written)
        const { entries, metadata } = await readHeader(file)
        expect(Object.entries(metadata)).toEqual([
          ['key', 'value'],
          ['__proto__', 'p'],
        ])
        expect([...entries.keys()].toSorted()).toEqual(made.map(each => each.name).toSorted())
        for (const each of made) {
          const target = new Float32Array(each.data.length)
          expect(entries.get(each.name)?.shape).toEqual(each.shape)
          await readFloats(file, entries.get(each.name)?.start ?? -1, target)
          expect(target).toEqual(each.data)
        }
        await file.close()
        expect(bytes.length).toBe(8 + length + made.reduce((sum, { data }) => sum + data.byteLength, 0))
      },
    ),
    { numRuns: 50 },
  )
})

test.each([
  ['the name of another', ['a', 'a'], /tensor a: two tensors cannot have this name/],
  ['the name of the metadata', ['__metadata__'], /tensor __metadata__: two tensors cannot have this name/],
])('a tensor with %s is not written', async (_, names, message) => {
  const list = names.map(name => ({ name, shape: [1], data: new Float32Array(1) }))
  await expect(writeSafetensors(join(folder, 'made'), list, {})).rejects.toThrow(message)
})

const F32 = (shape: number[], start: number, end: number) => ({ dtype: 'F32', shape, data_offsets: [start, end] })
const text = (json: string, data = 0) => safetensorsBytes(json, new Uint8Array(data))
const X = '"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

// Each was read as if it were right, except for the first six and the number that is none.
describe('a file is refused with the reason', () => {
  test.each<[string, Uint8Array, RegExp]>([
    ['an empty file', new Uint8Array(), /header does not fit/],
    [
      'a header longer than the file',
      Uint8Array.from([0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0x7b, 0x7d]),
      /header does not fit/,
    ],
    ['a header that is not JSON', text('{{'), /not the JSON of safetensors: at character 1 "\{" stands for a string/],
    ['a tensor that ends after the file', text(JSON.stringify({ x: F32([4], 0, 16) })), /cut short: .* it has/],
    [
      'a tensor of another type',
      text(JSON.stringify({ x: { ...F32([0], 0, 0), dtype: 'F16' } })),
      /of F16, not of F32/,
    ],
    [
      'a type that there is not',
      text(`{${X.replace('F32', 'F33')}}`, 4),
      /tensor x has the type F33, which safetensors does not have/,
    ],
    [
      'a shape that needs more',
      text(JSON.stringify({ x: F32([2], 0, 4) }), 4),
      /tensor x does not have the bytes its shape needs: F32 \[2\] has data_offsets 0 to 4/,
    ],
    [
      'two tensors on the same bytes',
      text(JSON.stringify({ x: F32([2], 0, 8), y: F32([1], 4, 8) }), 8),
      /tensor y overlaps: it begins 4 bytes before tensor x ends/,
    ],
    [
      'a gap',
      text(JSON.stringify({ x: F32([1], 0, 4), y: F32([1], 8, 12) }), 12),
      /gap: tensor y begins 4 bytes after tensor x/,
    ],
    [
      'a gap at the start',
      text(JSON.stringify({ x: F32([1], 4, 8) }), 8),
      /gap: tensor x begins 4 bytes after the data begin/,
    ],
    ['bytes after the last tensor', text(`{${X}}`, 6), /its last 2 bytes belong to no tensor/],
    ['a tensor that is there twice', text(`{${X},${X}}`, 4), /the key x in its header is there twice/],
    [
      'a shape that is there twice',
      text(`{${X.replace('"shape"', '"shape":[2],"shape"')}}`, 4),
      /shape in its header is there twice/,
    ],
    [
      'a key of a tensor that the format lacks',
      text(`{${X.replace('"shape"', '"size":[2],"shape"')}}`, 4),
      /size in its header is none of/,
    ],
    [
      'metadata that are there twice',
      text(`{"__metadata__":null,"__metadata__":{},${X}}`, 4),
      /__metadata__ in its header is there twice/,
    ],
    [
      'a metadata key that is there twice',
      text(`{"__metadata__":{"a":"1","a":"2"},${X}}`, 4),
      /the key a in its header is there twice/,
    ],
    ['metadata that are no text', text(`{"__metadata__":{"a":1},${X}}`, 4), /"1\},.* stands for a string/],
    [
      'a tensor without a shape',
      text('{"x":{"dtype":"F32","data_offsets":[0,4]}}', 4),
      /tensor x has no dtype, no shape or no two data_offsets/,
    ],
    ['a tensor that is null', text('{"x":null}'), /"null\}" stands for \{/],
    ['a number that is none', text(`{${X.replace('[1]', '[1.0]')}}`, 4), /stands for \]/],
    [
      'more axes than any tensor has',
      text(`{${X.replace('[1]', `[${Array(65).fill(1).join()}]`)}}`, 4),
      /at most 64 numbers/,
    ],
    ['a name that is not UTF-8', text(`{${X}}`, 4).map(byte => (byte === 0x78 ? 0xff : byte)), /not UTF-8/],
    ['space before the header', text(` {${X}}`, 4), /at character 0/],
    ['text after the header', text(`{${X}}{}`, 4), /stands for its end/],
  ])('%s', async (_, bytes, message) => {
    await expect(headerOf(bytes)).rejects.toThrow(message)
  })
})

test('null as metadata is no metadata, as it is for other readers', async () => {
  const { entries, metadata } = await headerOf(text(`{"__metadata__":null,${X}}`, 4))
  expect([...entries.keys()]).toEqual(['x'])
  expect(metadata).toEqual({})
})

test('tensors in any order, escapes, spaces and types that are only skipped are read', async () => {
  const json = String.raw`{ "\u0061\"": {"shape":[2,1] , "data_offsets":[ 2,10 ],"dtype":"F32"},"b":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},
    "s":{"dtype":"F32","shape":[],"data_offsets":[10,14]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[10,10]}}  `
  const start = 8 + json.length
  expect((await headerOf(text(json, 14), readHeaderOfAny)).entries).toEqual(
    new Map([
      ['a"', { dtype: 'F32', shape: [2, 1], start: start + 2, end: start + 10 }],
      ['b', { dtype: 'I8', shape: [2], start, end: start + 2 }],
      ['s', { dtype: 'F32', shape: [], start: start + 10, end: start + 14 }],
      ['e', { dtype: 'F32', shape: [0, 7], start: start + 10, end: start + 10 }],
    ]),
  )
})

// Seen failing with a comparison of each tensor with all others.
test('ten times as many tensors take about ten times as long', () => {
  /** Seconds of a processor for a header of `count` tensors. */
  const secondsFor = (count: number) => {
    const entry = (i: number) => `"blocks.${i}.w":{"dtype":"F32","shape":[1],"data_offsets":[${4 * i},${4 * i + 4}]}`
    const json = new TextEncoder().encode(`{${Array.from({ length: count }, (_, i) => entry(i)).join()}}`)
    const begun = process.cpuUsage()
    const { entries } = parseHeader(json, { dataStart: 0, size: 4 * count })
    expect(entries.size).toBe(count)
    const { user, system } = process.cpuUsage(begun)
    return (user + system) / 1e6
  }
  const many = process.env['SCMOE_SOAK'] ? 300_000 : 50_000
  secondsFor(many / 10)
  const [few, all] = [many / 10, many].map(count => Math.min(secondsFor(count), secondsFor(count)))
  console.log(`a header of ${many / 10} tensors takes ${few?.toFixed(3)} s, one of ${many} ${all?.toFixed(3)} s`)
  expect((all ?? 0) / (few ?? 0)).toBeLessThan(40)
})

test('a pipe in place of a file is refused and not waited for', async () => {
  const path = join(folder, 'pipe')
  expect(spawnSync('mkfifo', [path]).status).toBe(0)
  await expect(openFile(path)).rejects.toThrow('it is not a regular file')
})

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DataOptions, dataPath, randomBelow, TokenData } from '../../../worker/data/data.ts'
import { answered, readFailure } from '../../../worker/data/storage.ts'
import { learningRate } from '../../../worker/train/learning-rate.ts'

let folder: string
let path: string
/** A text in which byte i is i mod 251, so that a byte tells from where it was read. */
const SIZE = 10_000

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'scmoe-data-'))
  path = join(folder, 'text')
  writeFileSync(
    path,
    Uint8Array.from({ length: SIZE }, (_, i) => i % 251),
  )
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const open = (file: string, options: Partial<DataOptions> = {}) =>
  new TokenData(file, { tokens: 'bytes', vocabulary: 256, sequenceLength: 16, ...options })

const batch = (
  data: TokenData,
  of: { split?: 'train' | 'validation'; step?: number; first?: number; count?: number; seed?: number },
) => {
  const { split = 'train', step = 0, first = 0, count = 8, seed = 1 } = of
  const tokens = new Int32Array(count * 17)
  data.readInto(tokens, { split, seed, step, globalBatch: 8, first, count })
  return [...tokens]
}

test('a batch does not depend on how many ranks share it', () => {
  const data = open(path)
  fc.assert(
    fc.property(fc.nat(1_000_000), fc.constantFrom(1, 2, 4, 8), (step, ranks) => {
      const count = 8 / ranks
      const parts = Array.from({ length: ranks }, (_, rank) => batch(data, { step, first: rank * count, count }))
      expect(parts.flat()).toEqual(batch(data, { step }))
    }),
  )
  data.close()
})

test('rows are consecutive bytes of their part of the text: the last tenth is held out', () => {
  const data = open(path)
  const seen = { train: new Set<number>(), validation: new Set<number>() }
  for (const split of ['train', 'validation'] as const) {
    for (let step = 0; step < 300; step++) {
      const tokens = batch(data, { split, step, count: 8 })
      for (let row = 0; row < 8; row++) {
        const line = tokens.slice(row * 17, row * 17 + 17)
        for (let i = 1; i < 17; i++) expect(line[i]).toBe(((line[0] ?? 0) + i) % 251)
        seen[split].add(line[0] ?? -1)
      }
    }
  }
  // Each split has 251 possible first bytes, and 2400 draws find nearly all of them.
  expect(seen.train.size).toBeGreaterThan(245)
  expect(seen.validation.size).toBeGreaterThan(245)
  data.close()
})

test('steps, seeds and parts draw different places', () => {
  const data = open(path)
  const batches = [{}, { step: 1 }, { seed: 2 }, { split: 'validation' as const }].map(of => batch(data, of).join())
  expect(new Set(batches).size).toBe(batches.length)
  data.close()
})

test('random numbers stay below their limit and are even over it', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 40 }),
      fc.nat(),
      fc.bigInt({ min: 0n, max: 2n ** 50n }),
      (limit, seed, index) => {
        const value = randomBelow(limit, { seed, stream: 'train', index })
        expect(value).toBeGreaterThanOrEqual(0)
        expect(value).toBeLessThan(limit)
      },
    ),
  )
  const counts = Array.from({ length: 10 }, () => 0)
  for (let i = 0n; i < 10_000n; i++) {
    const value = randomBelow(10, { seed: 7, stream: 'train', index: i })
    counts[value] = (counts[value] ?? 0) + 1
  }
  // The standard deviation is 30, and 5 of them are allowed.
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(150)
})

test('a file that is shortened while it is read is a data failure', () => {
  const shrinking = join(folder, 'shrinking')
  writeFileSync(shrinking, 'x'.repeat(SIZE))
  const data = open(shrinking)
  writeFileSync(shrinking, 'x')
  expect(() => batch(data, {})).toThrow(/shortened while it was being read/)
  data.close()
})

/** A file in which token i is the number i, little endian. */
function numbers(name: string, width: 2 | 4, count: number): string {
  const bytes = Buffer.alloc(width * count)
  for (let i = 0; i < count; i++) bytes.writeUIntLE(i, i * width, width)
  const file = join(folder, name)
  writeFileSync(file, bytes)
  return file
}

// Broken once by reading big endian, once by places counted in bytes.
test.each([
  ['uint16', 2, 60_000],
  ['uint32', 4, 70_000],
] as const)('%s tokens are little-endian numbers, placed by token', (tokens, width, count) => {
  const data = open(numbers(tokens, width, count), { tokens, vocabulary: count })
  for (const [split, first, end] of [
    ['train', 0, (9 * count) / 10],
    ['validation', (9 * count) / 10, count],
  ] as const) {
    const starts: number[] = []
    for (let step = 0; step < 100; step++) {
      const drawn = batch(data, { split, step })
      for (let row = 0; row < 8; row++) {
        const line = drawn.slice(row * 17, row * 17 + 17)
        expect(line).toEqual(Array.from({ length: 17 }, (_, i) => (line[0] ?? 0) + i))
        starts.push(line[0] ?? -1)
      }
    }
    expect(Math.min(...starts)).toBeGreaterThanOrEqual(first)
    expect(Math.max(...starts)).toBeLessThan(end - 16)
    // The places are odd and even, from all over the split.
    expect(new Set(starts.map(start => start % 2)).size).toBe(2)
    expect(Math.max(...starts) - Math.min(...starts)).toBeGreaterThan(0.9 * (end - first))
  }
  data.close()
})

// Broken once by comparing after the number had become a signed one, once by a place counted in
// tokens.
test.each([
  ['bytes', 1, 200, 100],
  ['uint16', 2, 65_535, 50_257],
  ['uint32', 4, 4_294_967_295, 50_257],
] as const)(
  'of %s, a token outside the vocabulary is named with its place',
  async (tokens, width, wrong, vocabulary) => {
    const file = join(folder, `wrong-${tokens}`)
    const bytes = Buffer.alloc(width * 400)
    bytes.writeUIntLE(wrong, 100 * width, width)
    writeFileSync(file, bytes)
    const data = open(file, { tokens, vocabulary })
    const readAll = () => {
      for (let step = 0; step < 100; step++) batch(data, { step })
    }
    const message = new RegExp(
      `wrong-${tokens} holds the token ${wrong} at place 100 .byte ${100 * width}., but spec.model.vocabularySize is ${vocabulary}: .*spec.data.tokens than ${tokens}`,
    )
    expect(readAll).toThrow(message)
    await expect(data.check({ rank: 0, worldSize: 1 })).rejects.toThrow(message)
    await data.check({ rank: 1, worldSize: 2 })
    data.close()
  },
)

test('a token outside the vocabulary is found before any is drawn, by the rank in whose share it is', async () => {
  const file = join(folder, 'one-wrong')
  const bytes = Buffer.alloc(2 * 3_000_000)
  bytes.writeUInt16LE(50_257, 2 * 41_234)
  writeFileSync(file, bytes)
  const data = open(file, { tokens: 'uint16', vocabulary: 50_257 })
  const found = await Promise.allSettled([0, 1, 2, 3].map(rank => data.check({ rank, worldSize: 4 })))
  expect(found.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled', 'fulfilled'])
  expect(String(found[0]?.status === 'rejected' && found[0].reason)).toMatch(
    /the token 50257 at place 41234 .*tokens are 0 to 50256\. Correct the file, or create a new job: with spec.model.vocabularySize 50258 or more/,
  )
  data.close()
})

test('32-bit tokens are not read as 16-bit ones, and the refusal of the reverse says what they look like', async () => {
  const write = (name: string, width: 2 | 4) => {
    const bytes = Buffer.alloc(width * 30_000)
    for (let i = 0; i < 30_000; i++) bytes.writeUIntLE((i * 7919) % (width === 2 ? 50_000 : 151_936), i * width, width)
    writeFileSync(join(folder, name), bytes)
    return join(folder, name)
  }
  const wide = open(write('wide', 4), { tokens: 'uint16', vocabulary: 151_936 })
  await expect(wide.check({ rank: 0, worldSize: 1 })).rejects.toThrow(
    /holds uint32 tokens, but spec.data.tokens is uint16: .* Create a new job with spec.data.tokens uint32/,
  )
  const narrow = open(write('narrow', 2), { tokens: 'uint32', vocabulary: 151_936 })
  await expect(narrow.check({ rank: 0, worldSize: 1 })).rejects.toThrow(/looks like spec.data.tokens uint16\./)
  const right = open(write('right', 2), { tokens: 'uint16', vocabulary: 151_936 })
  await right.check({ rank: 0, worldSize: 1 })
  for (const data of [wide, narrow, right]) data.close()
})

test('a token that was written after the check is said to be new', async () => {
  const file = join(folder, 'rewritten')
  writeFileSync(file, Buffer.alloc(2 * 20_000))
  const data = open(file, { tokens: 'uint16', vocabulary: 100 })
  await data.check({ rank: 0, worldSize: 1 })
  writeFileSync(file, Buffer.alloc(2 * 20_000, 0xff))
  expect(() => batch(data, {})).toThrow(
    /the token 65535 at place \d+ .*The file was changed at \d{4}-.*after it was opened/,
  )
  data.close()
})

test('a named pipe is refused at once', () => {
  execFileSync('mkfifo', [join(folder, 'pipe')])
  expect(() => open(join(folder, 'pipe'))).toThrow(/pipe cannot be read: it is not a regular file/)
})

test('storage that is gone or does not answer is no fault of the data: another attempt may read it', async () => {
  const stale = Object.assign(new Error('ESTALE: stale file handle, read'), { code: 'ESTALE' })
  expect(readFailure('Reading /x at byte 5 failed', stale)).toMatchObject({
    reason: 'dataUnavailable',
    message: expect.stringMatching(/^Reading \/x at byte 5 failed: ESTALE: stale file handle\. .* repair it/),
  })
  const missing = Object.assign(new Error("ENOENT: no such file or directory, open '/x'"), { code: 'ENOENT' })
  expect(readFailure('The data /x cannot be read', missing)).toMatchObject({ reason: 'badData' })
  await expect(answered(new Promise(() => undefined), 'Opening the data /x', 0.01)).rejects.toMatchObject({
    reason: 'dataUnavailable',
    message: expect.stringContaining('Opening the data /x has not been answered for 0.01 s.'),
  })
  expect(await answered(Promise.resolve(7), 'Opening the data /x')).toBe(7)
})

test('a file cut within a token, or too short, is refused with its size', () => {
  const file = numbers('cut', 4, 1000)
  truncateSync(file, 3998)
  expect(() => open(file, { tokens: 'uint32' })).toThrow(/cut has 3998 bytes, .*multiple of the 4 .*tokens uint32/)
  truncateSync(file, 338)
  expect(() => open(file, { tokens: 'uint16' })).toThrow(/cut has 169 uint16 tokens; .*needs at least 170/)
})

test('a built-in text is made from its package when the folder lacks it', () => {
  const made = dataPath({ builtin: 'moby-dick' }, undefined, join(folder, 'made'))
  expect(readFileSync(made, 'utf8')).toContain('Call me Ishmael')
  expect(() => open(dataPath({ builtin: 'sotu' }, join(folder, 'none'), folder))).toThrow(
    /sotu\.txt cannot be read: ENOENT/,
  )
  expect(dataPath({ path: '/some/file' }, folder, folder)).toBe('/some/file')
})

test('the learning rate climbs over the warm-up, then falls to a tenth', () => {
  const schedule = { peak: 1, warmupSteps: 10, totalSteps: 100 }
  const rates = Array.from({ length: 100 }, (_, step) => learningRate(step, schedule))
  expect(rates[0]).toBeCloseTo(0.1)
  expect(rates[9]).toBe(1)
  expect(rates[10]).toBe(1)
  expect(rates[99]).toBeCloseTo(0.1)
  for (let step = 11; step < 100; step++) expect(rates[step]).toBeLessThan(rates[step - 1] ?? 0)
  for (const [warmupSteps, totalSteps] of [
    [0, 1],
    [5, 1],
    [1, 2],
  ] as const) {
    const rate = learningRate(totalSteps - 1, { peak: 1, warmupSteps, totalSteps })
    expect(rate > 0 && rate <= 1).toBe(true)
  }
})

// Random token files, whole and damaged, as the worker opens, checks and draws from them.
// SCMOE_SOAK=1 tries many more.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { TokenData } from '../../../worker/data/data.ts'
import { WorkerFailure } from '../../../worker/failure.ts'

const FILES = process.env['SCMOE_SOAK'] ? 500 : 100
const SEQUENCE = 8
const folder = mkdtempSync(join(tmpdir(), 'scmoe-tokens-'))
const path = join(folder, 'tokens.bin')
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const WIDTHS = { bytes: 1, uint16: 2, uint32: 4 } as const

const files = fc.record({
  tokens: fc.constantFrom(...(['bytes', 'uint16', 'uint32'] as const)),
  vocabulary: fc.constantFrom(2, 255, 256, 257, 50_257, 65_535, 65_536, 65_537, 151_936),
  count: fc.oneof(fc.nat(200), fc.nat(5000)),
  /** Bytes that are cut off the end. */
  cut: fc.oneof(fc.constant(0), fc.nat(5)),
  seed: fc.nat(2 ** 31 - 1),
  /** Tokens that the vocabulary lacks, and where. */
  wrong: fc.array(fc.record({ at: fc.double({ min: 0, max: 0.999, noNaN: true }), by: fc.nat(70_000) }), {
    maxLength: 2,
  }),
  ranks: fc.constantFrom(1, 2, 3, 7),
})
type File = typeof files extends fc.Arbitrary<infer T> ? T : never

/** The numbers of a file; every one that fits its width and is not `wrong` is in the vocabulary. */
function numbersOf({ tokens, vocabulary, count, seed, wrong }: File): number[] {
  const most = 256 ** WIDTHS[tokens]
  let state = seed
  const numbers = Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return (state >>> 8) % Math.min(vocabulary, most)
  })
  for (const { at, by } of wrong)
    if (vocabulary + by < most && count > 0) numbers[Math.floor(at * count)] = vocabulary + by
  return numbers
}

function write(file: File, numbers: readonly number[]): number {
  const width = WIDTHS[file.tokens]
  const bytes = Buffer.alloc(numbers.length * width)
  for (const [i, number] of numbers.entries()) bytes.writeUIntLE(number, i * width, width)
  const kept = bytes.subarray(0, Math.max(0, bytes.length - file.cut))
  writeFileSync(path, kept)
  return kept.length
}

/** The data, checked by every rank, or the failure. */
async function openAndCheck({ tokens, vocabulary, ranks }: File): Promise<TokenData | WorkerFailure> {
  try {
    const data = await TokenData.open(path, { tokens, vocabulary, sequenceLength: SEQUENCE })
    for (let rank = 0; rank < ranks; rank++) await data.check({ rank, worldSize: ranks })
    return data
  } catch (error) {
    if (error instanceof WorkerFailure) return error
    throw error
  }
}

test(`each of ${FILES} random files is refused by what is wrong with it, or every token drawn is one of its tokens`, async () => {
  const outcomes = { refused: 0, read: 0 }
  await fc.assert(
    fc.asyncProperty(files, async file => {
      const numbers = numbersOf(file)
      const bytes = write(file, numbers)
      const width = WIDTHS[file.tokens]
      const whole = Math.floor(bytes / width)
      const found = await openAndCheck(file)
      const bad = numbers.findIndex((token, place) => place < whole && token >= file.vocabulary)
      const isShort = Math.floor(whole / 10) < SEQUENCE + 1
      if (found instanceof WorkerFailure) {
        outcomes.refused++
        expect(found.reason).toBe('badData')
        expect(found.message).toContain(path)
        if (bytes % width !== 0) expect(found.message).toContain(`${bytes} bytes`)
        else if (isShort) expect(found.message).toContain(`spec.training.sequenceLength ${SEQUENCE}`)
        else expect(found.message).toContain(`the token ${numbers[bad]} at place ${bad} (byte ${bad * width})`)
        return
      }
      outcomes.read++
      expect([bytes % width, isShort, bad]).toEqual([0, false, -1])
      const drawn = new Int32Array(4 * (SEQUENCE + 1))
      found.readInto(drawn, { split: 'train', seed: file.seed, step: 3, globalBatch: 4, first: 0, count: 4 })
      const text = `,${numbers.join()},`
      for (let row = 0; row < 4; row++)
        expect(text).toContain(`,${drawn.slice(row * (SEQUENCE + 1), (row + 1) * (SEQUENCE + 1)).join()},`)
      found.close()
    }),
    { numRuns: FILES },
  )
  expect(outcomes.refused).toBeGreaterThan(FILES / 10)
  expect(outcomes.read).toBeGreaterThan(FILES / 10)
})

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dataPath, randomBelow, TextData } from '../../worker/data.ts'
import { learningRate } from '../../worker/learning-rate.ts'

let folder: string
let path: string
/** Byte i of the text is i mod 251: what was read tells where. */
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

const batch = (
  data: TextData,
  of: { split?: 'train' | 'validation'; step?: number; first?: number; count?: number; seed?: number },
) => {
  const { split = 'train', step = 0, first = 0, count = 8, seed = 1 } = of
  const tokens = new Int32Array(count * 17)
  data.readInto(tokens, { split, seed, step, globalBatch: 8, first, count })
  return [...tokens]
}

test('a batch does not depend on how many ranks share it', () => {
  const data = new TextData(path, 16)
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
  const data = new TextData(path, 16)
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
  // 251 first bytes are possible in each part, and 2400 draws find nearly all.
  expect(seen.train.size).toBeGreaterThan(245)
  expect(seen.validation.size).toBeGreaterThan(245)
  data.close()
})

test('steps, seeds and parts draw different places', () => {
  const data = new TextData(path, 16)
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
  // Standard deviation 30: 5 of them.
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(150)
})

test('a file that is shortened while it is read is a data failure', () => {
  const shrinking = join(folder, 'shrinking')
  writeFileSync(shrinking, 'x'.repeat(SIZE))
  const data = new TextData(shrinking, 16)
  writeFileSync(shrinking, 'x')
  expect(() => batch(data, {})).toThrow(/shortened while it was being read/)
  data.close()
})

test('a built-in text is made from its package when the folder lacks it', () => {
  const made = dataPath({ builtin: 'moby-dick' }, undefined, join(folder, 'made'))
  expect(readFileSync(made, 'utf8')).toContain('Call me Ishmael')
  expect(() => new TextData(dataPath({ builtin: 'sotu' }, join(folder, 'none'), folder), 16)).toThrow(
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

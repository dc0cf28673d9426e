// Tests of writing and reading checkpoints.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { encodeIndex, markOf, readIndex } from '../../../worker/checkpoint/contents.ts'
import { restoreCheckpoint } from '../../../worker/checkpoint/restore.ts'
import { readHeader } from '../../../worker/checkpoint/safetensors.ts'
import { Saving } from '../../../worker/checkpoint/saving.ts'
import type { ModelConfig } from '../../../worker/model/config.ts'
import {
  type Change,
  model,
  places as placesIn,
  restoreAll,
  saveAll,
  stateOf,
  TRAINED,
} from '../../support/files/checkpoints.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'scmoe-checkpoint-'))
  for (const name of ['checkpoints', 'elsewhere']) mkdirSync(join(folder, name))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const places = (config: ModelConfig, change: Change = {}) => placesIn(folder, config, change)
const save = (config: ModelConfig, step: number, change: Change = {}) => saveAll(places(config, change), step)
const restore = (config: ModelConfig, change: Change = {}) => restoreAll(places(config, change))
const saveAt = async (...saving: Parameters<typeof Saving.start>) => (await Saving.start(...saving)).finish()

test('a checkpoint of any number of ranks is read on any other number, bit for bit', async () => {
  const sizes: [worldSize: number, expertParallelSize: number][] = [
    [1, 1],
    [2, 2],
    [4, 4],
    [4, 2],
    [8, 2],
    [2, 1],
  ]
  for (const [saved, wanted] of sizes.flatMap(a => sizes.map(b => [a, b] as const))) {
    await save(model(...saved), 30)
    const config = model(...wanted)
    const { ranks, warnings } = await restore(config)
    expect(warnings).toEqual([])
    for (const [rank, { held, restored }] of ranks.entries()) {
      expect(restored?.index).toMatchObject({
        step: 30,
        losses: { first: {}, last: { loss: 1, evaluationLoss: 2 } },
        trained: TRAINED,
        worldSize: saved[0],
      })
      expect(held.map(({ data }) => data)).toEqual(stateOf(config, rank, 30).map(({ data }) => data))
    }
  }
})

test('only the first replica writes, and only its rank 0 writes the dense tensors', async () => {
  await save(model(8, 2), 1)
  const at = join(folder, 'checkpoints/step-00000001')
  expect(readdirSync(at).toSorted()).toEqual(['index.json', 'shard-0-of-2.safetensors', 'shard-1-of-2.safetensors'])
  const file = await open(join(at, 'shard-1-of-2.safetensors'))
  const { entries, metadata } = await readHeader(file)
  await file.close()
  expect([...entries.keys()].every(name => name.includes('.experts.'))).toBe(true)
  const checkpoint = markOf(await readIndex(at))
  expect(metadata).toEqual({ format: 'scmoe-1', step: '1', experts: '4-7 of 8', checkpoint })
  expect(entries.get('blocks.1.moe.experts.up.weight.m')?.shape).toEqual([4, 16, 16])
})

test('the last checkpoints are kept, and older ones are removed', async () => {
  for (const step of [5, 10, 15, 20]) await save(model(2, 2), step)
  expect(readdirSync(join(folder, 'checkpoints')).toSorted()).toEqual(['step-00000015', 'step-00000020'])
})

test('tensors that change after the start of a save are saved as they were', async () => {
  const config = model(2, 2)
  const saved = await Promise.all(
    places(config).map(async place => {
      const held = stateOf(config, place.rank, 7)
      const saving = await Saving.start(place, 7, { held, losses: { first: {}, last: {} } })
      for (const { data } of held) data.fill(-1)
      return saving.finish()
    }),
  )
  for (const { bytes, snapshotMilliseconds, writeMilliseconds, stalledMilliseconds } of saved) {
    expect(bytes).toBeGreaterThan(10_000)
    expect(writeMilliseconds).toBeGreaterThan(0)
    expect(stalledMilliseconds).toBeGreaterThanOrEqual(snapshotMilliseconds)
  }
  const { ranks } = await restore(config)
  for (const [rank, { held }] of ranks.entries()) {
    expect(held.map(({ data }) => data)).toEqual(stateOf(config, rank, 7).map(({ data }) => data))
  }
})

// Broken once by tensors copied to the start of the memory, by a checkpoint that got its name
// twice, and by memory that was made anew each time.
test('ranks advance a save between steps, and the next save takes its memory', async () => {
  const config = model(2, 2)
  const all = places(config)
  const state = (rank: number, step: number) => ({ held: stateOf(config, rank, step), losses: { first: {}, last: {} } })
  let memory: (ArrayBuffer | undefined)[] = []
  for (const step of [7, 8]) {
    const saving = await Promise.all(
      all.map((place, rank) => Saving.start(place, step, { ...state(rank, step), memory: memory[rank] })),
    )
    const advanced = async (seen: string) => {
      const done = () => expect(saving.map(({ pending }) => pending)).toEqual([false, false])
      await vi.waitFor(done, { timeout: 20_000 })
      expect(readdirSync(join(folder, 'checkpoints'))).toContainEqual(seen)
      return Promise.all(saving.map(one => one.advance()))
    }
    expect(await advanced(expect.stringMatching(`^\\.tmp-.*-step-0000000${step}$`))).toEqual([undefined, undefined])
    const saved = expect.objectContaining({ step })
    expect(await advanced(`step-0000000${step}`)).toEqual([saved, saved])
    // The thread that writes has taken the memory.
    for (const used of memory) expect(used?.detached).toBe(true)
    memory = saving.map(one => one.memory)
    const { ranks } = await restore(config)
    for (const [rank, { held }] of ranks.entries())
      expect(held.map(({ data }) => data)).toEqual(state(rank, step).held.map(({ data }) => data))
  }
  expect(memory.map(buffer => (buffer?.byteLength ?? 0) > 10_000)).toEqual([true, true])
})

// Broken once by a rank that asked only itself: the other did not wait.
test.each([
  ['without room for a copy on a rank', 1000, false],
  ['at the end of training', 1e12, true],
])('%s, the start of a save waits until it is written', async (_, memory, last) => {
  const available = vi.spyOn(process, 'availableMemory').mockReturnValueOnce(memory).mockReturnValue(1e12)
  const config = model(2, 2)
  const saving = await Promise.all(
    places(config).map(place =>
      Saving.start(place, 7, { held: stateOf(config, place.rank, 7), losses: { first: {}, last: {} }, last }),
    ),
  )
  available.mockRestore()
  expect(saving.map(({ pending }) => pending)).toEqual([false, false])
  await Promise.all(saving.map(one => one.finish()))
  expect(saving.map(one => one.memory)).toEqual([undefined, undefined])
  expect((await restore(config)).ranks[1]?.restored?.index.step).toBe(7)
})

test('an empty or missing folder is a fresh start', async () => {
  const { ranks, warnings } = await restore(model(2, 2))
  expect(ranks.map(({ restored }) => restored)).toEqual([undefined, undefined])
  expect(warnings).toEqual([])
})

test('a damaged checkpoint is put aside, so that it does not count as kept', async () => {
  for (const step of [5, 10]) await save(model(2, 2), step)
  writeFileSync(join(folder, 'checkpoints/step-00000010/shard-1-of-2.safetensors'), 'nothing')
  const { ranks, warnings } = await restore(model(2, 2))
  expect(ranks.map(({ restored }) => restored?.index.step)).toEqual([5, 5])
  expect(warnings.join('\n')).toMatch(
    /step-00000010 is not usable \(shard-1-of-2\.safetensors: it has 7 bytes instead of \d+\); .*step-00000005 is used instead/,
  )
  await save(model(2, 2), 6, { keep: 1 })
  const left = readdirSync(join(folder, 'checkpoints')).toSorted()
  expect(left).toEqual(['step-00000006', expect.stringMatching(/^unusable-00000010-\d+$/)])
})

// Seen failing without the comparison: the values after the tensor's own were read as part of it.
test('a tensor that is longer in the index than in its file makes a checkpoint unusable', async () => {
  for (const step of [5, 10]) await save(model(2, 2), step)
  const at = join(folder, 'checkpoints/step-00000010')
  const index = await readIndex(at)
  const parts = (index.tensors['norm.gamma'] ?? []).map(part => ({ ...part, count: part.count + 1 }))
  const changed = { ...index, tensors: { ...index.tensors, 'norm.gamma': parts } }
  writeFileSync(join(at, 'index.json'), encodeIndex(changed))
  const { ranks, warnings } = await restore(model(2, 2))
  expect(ranks.map(({ restored }) => restored?.index.step)).toEqual([5, 5])
  expect(warnings.join('\n')).toContain('it has 17 elements of norm.gamma, which has 16')
})

// Broken once by a checksum that nobody looked at.
test('if any bit of a checkpoint is flipped, or any file is cut, the checkpoint before it is used', async () => {
  for (const step of [5, 10]) await save(model(2, 2), step)
  const checkpoints = join(folder, 'checkpoints')
  const newest = join(checkpoints, 'step-00000010')
  const names = readdirSync(newest)
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...names),
      // The first bytes say how to read the others, so they are damaged more often.
      fc.oneof(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(40)),
      fc.option(fc.nat(7)),
      async (name, where, bit) => {
        const path = join(newest, name)
        const bytes = readFileSync(path)
        // Without its last byte, which ends the line, the index would still be complete.
        const at = Number.isInteger(where) ? where : Math.floor(where * (bytes.length - 1))
        const damaged = bit === null ? bytes.subarray(0, at) : Uint8Array.from(bytes)
        if (bit !== null) damaged[at] = (damaged[at] ?? 0) ^ (1 << bit)
        writeFileSync(path, damaged)
        const { ranks, warnings } = await restore(model(2, 2)).finally(() => {
          for (const left of readdirSync(checkpoints))
            if (left.startsWith('unusable')) renameSync(join(checkpoints, left), newest)
          writeFileSync(path, bytes)
        })
        expect(ranks.map(({ restored }) => restored?.index.step)).toEqual([5, 5])
        expect(warnings.join('\n')).toContain(`step-00000010 is not usable (${name}: `)
      },
    ),
    { numRuns: process.env['SCMOE_SOAK'] ? 2000 : 60 },
  )
})

test('a rank that does not see the folder stops everyone: giving it up would lose work', async () => {
  await save(model(2, 2), 5)
  const ranks = places(model(2, 2)).map(place =>
    restoreCheckpoint(
      { ...place, directory: place.rank === 0 ? place.directory : join(folder, 'elsewhere') },
      stateOf(place.model, place.rank),
      () => {},
    ),
  )
  const ends = await Promise.allSettled(ranks)
  for (const end of ends) expect(end).toMatchObject({ status: 'rejected', reason: { reason: 'checkpoint' } })
  expect(String(ends[1]?.status === 'rejected' && ends[1].reason)).toMatch(/every worker must mount the same volume/)
  expect(readdirSync(join(folder, 'checkpoints'))).toEqual(['step-00000005'])
})

test('a rank that writes elsewhere is noticed before the checkpoint gets its name', async () => {
  const ranks = places(model(2, 2)).map(place =>
    saveAt({ ...place, directory: place.rank === 0 ? place.directory : join(folder, 'elsewhere') }, 5, {
      held: stateOf(place.model, place.rank, 5),
      losses: { first: {}, last: {} },
    }),
  )
  const ends = await Promise.allSettled(ranks)
  for (const end of ends) expect(end).toMatchObject({ status: 'rejected', reason: { reason: 'checkpoint' } })
  expect(String(ends[0]?.status === 'rejected' && ends[0].reason)).toMatch(
    /shard-1-of-2\.safetensors.*not visible to rank 0/,
  )
  expect(readdirSync(join(folder, 'checkpoints'))).toEqual([])
})

test('another model is refused by all ranks, with the field', async () => {
  await save(model(2, 2), 5)
  await expect(restore(model(2, 2, { hiddenSize: 32 }))).rejects.toMatchObject({
    reason: 'badConfig',
    message: expect.stringContaining('spec.model.hiddenSize 16, the job has 32'),
  })
})

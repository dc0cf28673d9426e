// Tests of writing and reading checkpoints, and of the safetensors format.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { encodeIndex, readIndex, type Trained } from '../../../worker/checkpoint/contents.ts'
import { type CheckpointPlace, type Held, heldTensors } from '../../../worker/checkpoint/place.ts'
import { restoreCheckpoint } from '../../../worker/checkpoint/restore.ts'
import { hashFile, readFloats, readHeader, writeSafetensors } from '../../../worker/checkpoint/safetensors.ts'
import { Saving } from '../../../worker/checkpoint/saving.ts'
import { type ModelConfig, modelConfig } from '../../../worker/model/config.ts'
import { sliceOf, tensors } from '../../../worker/model/tensors.ts'
import { reducers } from '../../support/reducers.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'scmoe-checkpoint-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function model(worldSize: number, expertParallelSize: number, hiddenSize = 16): ModelConfig {
  const spec = ScMoEJobSpec.parse({
    model: { blocks: 2, hiddenSize, heads: 2, feedForwardSize: 16, experts: 8 },
    training: { steps: 1, globalBatchSequences: 8, sequenceLength: 8 },
    parallelism: { expertParallelSize },
    workers: { replicas: worldSize },
  })
  return modelConfig(spec, worldSize)
}

/**
 * The state of one rank. Element i of the global tensor number t is a function of t, i and `step`;
 * without a step it is NaN.
 */
function stateOf(config: ModelConfig, rank: number, step?: number): Held[] {
  const slices = new Map(tensors(config).map(tensor => [tensor.name, sliceOf(tensor, config, rank)]))
  const memory = (name: string) => new Float32Array(slices.get(name.replace(/\.[mv]$/, ''))?.count ?? 0)
  const held = heldTensors(config, rank, memory)
  for (const [t, { data, slice }] of held.entries()) {
    for (let i = 0; i < data.length; i++)
      data[i] = step === undefined ? Number.NaN : Math.fround(step + t / 7 + (slice.start + i) / 1e4)
  }
  return held
}

const TRAINED: Trained = {
  data: { source: '/data/tokens', tokens: 'uint16', length: 1000 },
  learningRate: { peak: 6e-4, warmupSteps: 20, totalSteps: 200, from: 100, reached: 0.5 },
}

const places = (config: ModelConfig, change: { keep?: number } = {}): CheckpointPlace[] =>
  reducers(config.worldSize).map((reduce, rank) => ({
    directory: join(folder, 'checkpoints'),
    keep: change.keep ?? 2,
    model: config,
    rank,
    jobUid: 'uid',
    seed: 1,
    trained: () => TRAINED,
    reduce,
  }))

const saveAt = async (...saving: Parameters<typeof Saving.start>) => (await Saving.start(...saving)).finish()

const save = (config: ModelConfig, step: number, change: { keep?: number } = {}) =>
  Promise.all(
    places(config, change).map(place =>
      saveAt(place, step, {
        held: stateOf(config, place.rank, step),
        losses: { last: { evaluationLoss: 2, loss: 1 }, first: {} },
      }),
    ),
  )

async function restore(config: ModelConfig, change: { keep?: number } = {}) {
  const warnings: string[] = []
  const ranks = places(config, change).map(async place => {
    const held = stateOf(config, place.rank)
    return { held, restored: await restoreCheckpoint(place, held, message => warnings.push(message)) }
  })
  return { ranks: await Promise.all(ranks), warnings }
}

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

test('a checkpoint of a version that did not say what it was trained on is read all the same', async () => {
  await save(model(2, 2), 30)
  const at = join(folder, 'checkpoints/step-00000030')
  const { trained: _, ...older } = await readIndex(at)
  writeFileSync(join(at, 'index.json'), encodeIndex(older))
  const { ranks, warnings } = await restore(model(2, 2))
  expect(warnings).toEqual([])
  expect(ranks[0]?.restored?.index).toMatchObject({ step: 30 })
  expect(ranks[0]?.restored?.index.trained).toBeUndefined()
})

test('only the first replica writes, and only its rank 0 writes the dense tensors', async () => {
  await save(model(8, 2), 1)
  const at = join(folder, 'checkpoints/step-00000001')
  expect(readdirSync(at).toSorted()).toEqual(['index.json', 'shard-0-of-2.safetensors', 'shard-1-of-2.safetensors'])
  const file = await open(join(at, 'shard-1-of-2.safetensors'))
  const { entries, metadata } = await readHeader(file)
  await file.close()
  expect([...entries.keys()].every(name => name.includes('.experts.'))).toBe(true)
  expect(metadata).toEqual({ format: 'scmoe-1', step: '1', experts: '4-7 of 8' })
  expect(entries.get('blocks.1.moe.experts.up.weight.m')?.shape).toEqual([4, 16, 16])
})

test('the last checkpoints are kept, and older ones are removed', async () => {
  for (const step of [5, 10, 15, 20]) await save(model(2, 2), step)
  expect(readdirSync(join(folder, 'checkpoints')).toSorted()).toEqual(['step-00000015', 'step-00000020'])
})

test('leftovers of a dead process are removed and never read', async () => {
  await save(model(2, 2), 5)
  mkdirSync(join(folder, 'checkpoints/.tmp-step-00000010'))
  mkdirSync(join(folder, 'checkpoints/.tmp-old-1'))
  const { ranks } = await restore(model(2, 2))
  expect(ranks[0]?.restored?.index.step).toBe(5)
  expect(readdirSync(join(folder, 'checkpoints'))).toEqual(['step-00000005'])
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
      expect(readdirSync(join(folder, 'checkpoints'))).toContain(seen)
      return Promise.all(saving.map(one => one.advance()))
    }
    expect(await advanced(`.tmp-step-0000000${step}`)).toEqual([undefined, undefined])
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
  expect(warnings.join('\n')).toContain('tensor norm.gamma has 16 values in it instead of 17')
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
    { numRuns: 120 },
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
  await expect(restore(model(2, 2, 32))).rejects.toMatchObject({
    reason: 'badConfig',
    message: expect.stringContaining('spec.model.hiddenSize 16, the job has 32'),
  })
})

test('safetensors: what is written is read, the header as the format says', async () => {
  const shape = fc.array(fc.nat(5), { maxLength: 3 })
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.tuple(fc.string(), shape), { selector: ([name]) => name, maxLength: 5 }),
      async list => {
        fc.pre(list.every(([name]) => name !== '__metadata__' && name !== '__proto__'))
        const path = join(folder, `${Math.random()}`)
        const made = list.map(([name, dims], t) => ({
          name,
          shape: dims,
          data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => t + i / 3),
        }))
        const written = await writeSafetensors(path, made, { key: 'value' })
        const bytes = readFileSync(path)
        const length = Number(bytes.readBigUInt64LE(0))
        expect(length % 8).toBe(0)
        const header: object = JSON.parse(bytes.subarray(8, 8 + length).toString())
        expect(Object.keys(header)).toHaveLength(1 + made.length)
        const file = await open(path)
        expect(await hashFile(file)).toEqual(written)
        const { entries, metadata } = await readHeader(file)
        expect(metadata).toEqual({ key: 'value' })
        for (const { name, shape: dims, data } of made) {
          const target = new Float32Array(data.length)
          expect(entries.get(name)?.shape).toEqual(dims)
          await readFloats(file, entries.get(name)?.start ?? -1, target)
          expect(target).toEqual(data)
        }
        await file.close()
        expect(bytes.length).toBe(8 + length + made.reduce((sum, { data }) => sum + data.byteLength, 0))
      },
    ),
    { numRuns: 50 },
  )
})

test.each<[string, Buffer, RegExp]>([
  ['an empty file', Buffer.alloc(0), /header does not fit/],
  [
    'a header longer than the file',
    Buffer.from([0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0x7b, 0x7d]),
    /header does not fit/,
  ],
  ['a header that is not JSON', Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7b]), /JSON/],
  [
    'a tensor that ends after the file',
    safetensorsHeader({ x: { dtype: 'F32', shape: [4], data_offsets: [0, 16] } }),
    /tensor x does not have the bytes/,
  ],
  ['a tensor of another type', safetensorsHeader({ x: { dtype: 'F16', shape: [0], data_offsets: [0, 0] } }), /F32/],
])('safetensors: refused: %s', async (_, bytes, message) => {
  const path = join(folder, 'bad')
  writeFileSync(path, bytes)
  const file = await open(path)
  await expect(readHeader(file)).rejects.toThrow(message)
  await file.close()
})

function safetensorsHeader(header: object): Buffer {
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json])
}

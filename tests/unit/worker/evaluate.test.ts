// Tests of the pure parts of `scmoe eval`: the model, the batches, and the problems of weights that
// another program wrote.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { modelDifference, modelFields } from '../../../worker/checkpoint/contents.ts'
import { batchesOf, batchOf, emitBatch, modelOf, specOfIndex } from '../../../worker/evaluate/model.ts'
import { type Found, weightProblems } from '../../../worker/evaluate/weights.ts'
import { tensors } from '../../../worker/model/tensors.ts'
import { configOf, job } from '../../support/program-arbitraries.ts'

describe('the model of an evaluation', () => {
  // Failed when specOfIndex left out keyValueHeads.
  it("is the one that a checkpoint's index holds, on one rank", () => {
    fc.assert(
      fc.property(job, made => {
        const config = configOf(made)
        const model = modelOf(specOfIndex({ model: modelFields(config) }), 3)
        expect(modelDifference(modelFields(config), model)).toBeUndefined()
        expect(tensors(model)).toEqual(tensors(config))
        expect(model).toMatchObject({ worldSize: 1, expertParallelSize: 1, batch: 3, microBatches: 1 })
        expect(model.capacity).toBe(3 * config.sequence)
      }),
    )
  })

  it('computes as many sequences at a time as a rank of the job', () => {
    const spec = ScMoEJobSpec.parse({
      training: { steps: 1, globalBatchSequences: 24, microBatches: 3 },
      workers: { replicas: 2 },
    })
    expect(batchOf(spec)).toBe(4)
  })
})

describe('batches', () => {
  it('have every sequence once, in order, and all but the last have the same size', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.option(fc.integer({ min: 1, max: 30 })), (sequences, batch) => {
        const made = batchesOf(sequences, batch ?? undefined)
        const covered = made.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i))
        expect(covered).toEqual(Array.from({ length: sequences }, (_, i) => i))
        const sizes = new Set(made.slice(0, -1).map(({ count }) => count))
        expect(sizes.size).toBeLessThanOrEqual(1)
        expect(made[0]?.count).toBe(Math.min(sequences, batch ?? 8))
      }),
    )
  })

  // Failed when persistent buffers that no op uses stayed.
  it('of all sizes have one persistent memory: no moments, and gradients only where wanted', () => {
    fc.assert(
      fc.property(job, fc.boolean(), (made, gradients) => {
        const spec = specOfIndex({ model: modelFields(configOf(made)) })
        const persistent = (count: number) =>
          emitBatch(spec, { count, most: 4, sequences: 13, gradients }).emitted.buffers.filter(
            ({ arena }) => arena === 'persistent',
          )
        expect(persistent(1)).toEqual(persistent(4))
        const names = persistent(4).map(({ name }) => name)
        const parameters = tensors(configOf(made)).map(({ name }) => name)
        expect(names.filter(name => /\.[mv]$/.test(name))).toEqual([])
        expect(names.filter(name => name.endsWith('.grad'))).toHaveLength(gradients ? parameters.length : 0)
        expect(names).toEqual(expect.arrayContaining([...parameters, 'tokens', 'loss']))
      }),
      { numRuns: 30 },
    )
  })
})

describe('weights from elsewhere', () => {
  const expected = [
    { name: 'wte', shape: [256, 32] },
    { name: 'blocks.0.attn.qkv.weight', shape: [96, 32] },
  ]
  const problems = (change: Record<string, Found[]>) => {
    const right = expected.map(({ name, shape }): [string, Found[]] => [name, [{ dtype: 'F32', shape, file: 'a' }]])
    return weightProblems(expected, new Map([...right, ...Object.entries(change)]))
  }

  it('are right when all tensors are there as they should be', () => {
    expect(problems({})).toEqual([])
  })

  const QKV = 'blocks.0.attn.qkv.weight'
  it.each<[string, Record<string, Found[]>, string]>([
    ['missing', { wte: [] }, 'wte: not there, expected F32 [256, 32]: write it'],
    [
      'misshapen',
      { wte: [{ dtype: 'F32', shape: [300, 32], file: 'a' }] },
      "wte: found F32 [300, 32] in a, expected F32 [256, 32]: write it in that shape, or correct the job's spec.model and sequenceLength",
    ],
    [
      'transposed',
      { [QKV]: [{ dtype: 'F32', shape: [32, 96], file: 'a' }] },
      `${QKV}: found F32 [32, 96] in a, expected F32 [96, 32]: transpose it`,
    ],
    [
      'of another type',
      { wte: [{ dtype: 'BF16', shape: [256, 32], file: 'a' }] },
      'wte: found BF16 [256, 32] in a, expected F32 [256, 32]: convert it to float32',
    ],
    [
      'in two files',
      { wte: ['a', 'b'].map(file => ({ dtype: 'F32', shape: [256, 32], file })) },
      'wte: found F32 [256, 32] in a and again in b: leave one of them out',
    ],
    [
      'unknown',
      { 'wte.scale': [{ dtype: 'F32', shape: [1], file: 'b' }] },
      'wte.scale: found F32 [1] in b, expected no such tensor: leave it out, or name it as docs/checkpoints.md does',
    ],
    [
      'a moment',
      { 'wte.m': [{ dtype: 'F32', shape: [256, 32], file: 'b' }] },
      'wte.m: found F32 [256, 32] in b, expected no such tensor: leave out the moments of the optimizer',
    ],
    [
      'the head of a tied model',
      { 'head.weight': [{ dtype: 'F32', shape: [256, 32], file: 'b' }] },
      'head.weight: found F32 [256, 32] in b, expected no such tensor: the head is wte; leave it out, or set spec.model.tieEmbeddings to false',
    ],
  ])('%s: one line with what was found, what was expected and what to do', (_, change, line) => {
    expect(problems(change)).toEqual([line])
  })
})

// Tests of the model's tensors: names, counts, slices and initial values.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { modelConfig } from '../../../worker/model/config.ts'
import { initialise } from '../../../worker/model/initialise.ts'
import { elementsOf, parameterCounts, sliceOf, type Tensor, tensors } from '../../../worker/model/tensors.ts'
import { configOf, job } from '../../support/program-arbitraries.ts'

const spec = (model: object, rest: object = {}) =>
  ScMoEJobSpec.parse({ model, training: { steps: 1, globalBatchSequences: 8, sequenceLength: 16 }, ...rest })
const weight: Pick<Tensor, 'name' | 'init'> = { name: 'blocks.0.mlp.up.weight', init: { kind: 'normal', std: 0.02 } }

describe('model config', () => {
  it('derives what the spec leaves open', () => {
    const config = modelConfig(spec({ kind: 'Top2', blocks: 6, experts: 8 }), 4)
    expect(config).toMatchObject({ units: 3, topK: 2, batch: 2, expertParallelSize: 4, worldSize: 4 })
    // ceil(2 * 32 tokens * 2 choices / 8 experts)
    expect(config.capacity).toBe(16)
    expect(modelConfig(spec({ kind: 'ScMoE' }), 1).topK).toBe(1)
  })

  it('never lets capacity exceed the tokens of a rank: a token chooses an expert once', () => {
    expect(modelConfig(spec({ capacityFactor: '1000' }), 4).capacity).toBe(32)
  })

  // crds/rules.ts refuses such jobs with words for users (tests/unit/crds/agreement.test.ts).
  it.each([
    [{ blocks: 3 }, {}, 'model.blocks'],
    [{}, { training: { steps: 1, globalBatchSequences: 6 } }, 'training.globalBatchSequences'],
  ])('of %j %j is not made: the error names the rule that was not asked', (model, rest, field) => {
    expect(() => modelConfig(spec(model, rest), 4)).toThrow(`the rule about spec.${field} in crds/rules.ts`)
  })
})

describe('tensors', () => {
  it('add up to the closed form', () => {
    // A unit has two attentions, one MLP, one shared expert with its gate, E experts, a router, and
    // five norms.
    const [d, f, experts, units, vocabulary, sequence] = [16, 24, 8, 2, 256, 8]
    const feedForward = 2 * d * f + f + d
    const attention = 4 * d * d + 4 * d
    const unit = 2 * attention + (2 + experts) * feedForward + experts * d + 5 * 2 * d + d
    const expected = 2 * vocabulary * d + vocabulary + sequence * d + 2 * d + units * unit
    const config = configOf({ kind: 'ScMoE', topK: 1, units, worldSize: 4, expertParallelSize: 4, expertsPerRank: 2 })
    const counts = parameterCounts(config)
    expect(counts.total).toBe(expected)
    expect(counts.perRank).toBe(expected - units * 6 * feedForward)
    expect(counts.active).toBe(expected - units * 7 * feedForward)
  })

  // Table 8 of arXiv 2404.05019 gives the sizes with top-2 experts.
  it.each([
    ['gpt2-moe-small', 1024, 323e6],
    ['gpt2-moe-medium', 2048, 1.7e9],
    ['gpt3-moe-xl', 2048, 4.1e9],
    ['llama2-moe', 2048, 6.7e9],
  ])('of preset %s add up to the size in the paper', (preset, sequenceLength, size) => {
    const training = { steps: 1, globalBatchSequences: 1, sequenceLength }
    const config = modelConfig(ScMoEJobSpec.parse({ model: { preset, kind: 'Top2' }, training }), 1)
    expect(Math.abs(parameterCounts(config).total / size - 1)).toBeLessThan(0.02)
  })

  it('of DGMoE are those of Top2, and a token uses as many', () => {
    const of = (kind: 'DGMoE' | 'Top2') =>
      configOf({ kind, units: 2, worldSize: 1, expertParallelSize: 1, expertsPerRank: 4 })
    expect(tensors(of('DGMoE'))).toEqual(tensors(of('Top2')))
    expect(parameterCounts(of('DGMoE'))).toEqual(parameterCounts(of('Top2')))
  })

  it('have one name each, and decay only where they are matrices', () => {
    fc.assert(
      fc.property(job, model => {
        const list = tensors(configOf(model))
        expect(new Set(list.map(({ name }) => name)).size).toBe(list.length)
        for (const { name, decay } of list)
          expect(decay).toBe(/(wte|wpe|weight)$/.test(name) && !name.endsWith('shared.gate.weight'))
      }),
    )
  })

  it('are held by the ranks of an EP group without gap or overlap', () => {
    fc.assert(
      fc.property(job, model => {
        const config = configOf(model)
        for (const tensor of tensors(config)) {
          const group = Array.from({ length: config.expertParallelSize }, (_, rank) => sliceOf(tensor, config, rank))
          const count = elementsOf(tensor.shape) / (tensor.kind === 'dense' ? 1 : group.length)
          const step = tensor.kind === 'dense' ? 0 : count
          expect(group).toEqual(group.map((_, rank) => ({ start: rank * step, count })))
        }
      }),
    )
  })
})

describe('initial values', () => {
  it('do not depend on how a tensor is cut', () => {
    const whole = initialise(weight, 7, { start: 0, count: 1000 })
    fc.assert(
      fc.property(fc.nat(999), fc.nat(999), (a, b) => {
        const [start, end] = a < b ? [a, b] : [b, a]
        expect(initialise(weight, 7, { start, count: end - start })).toEqual(whole.slice(start, end))
      }),
    )
  })

  it('are normal with the standard deviation the tensor names', () => {
    const values = initialise(weight, 1, { start: 0, count: 200_000 })
    const moment = (power: number) => values.reduce((sum, x) => sum + (x / 0.02) ** power, 0) / values.length
    // The moments of a normal sample have standard errors of 1, 1.4, 3.9 and 9.8 / sqrt(200 000);
    // the bounds allow five of them.
    expect(Math.abs(moment(1))).toBeLessThan(0.012)
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.016)
    expect(Math.abs(moment(3))).toBeLessThan(0.044)
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.11)
    const neighbours = values.reduce((sum, x, i) => sum + (x * (values[i + 1] ?? 0)) / 0.02 ** 2, 0) / values.length
    expect(Math.abs(neighbours)).toBeLessThan(0.012)
  })

  it('differ by tensor and by seed', () => {
    const slice = { start: 0, count: 64 }
    const one = initialise(weight, 1, slice)
    expect(initialise(weight, 2, slice)).not.toEqual(one)
    expect(initialise({ ...weight, name: 'blocks.2.mlp.up.weight' }, 1, slice)).not.toEqual(one)
    expect(initialise(weight, 1, slice)).toEqual(one)
  })

  it('shrink projections into the residual stream by sqrt(2 * blocks)', () => {
    const config = configOf({
      kind: 'ScMoE',
      topK: 1,
      units: 4,
      worldSize: 1,
      expertParallelSize: 1,
      expertsPerRank: 2,
    })
    const std = (name: string) => {
      const init = tensors(config).find(tensor => tensor.name === name)?.init
      return init?.kind === 'normal' ? init.std : Number.NaN
    }
    expect(std('blocks.3.attn.qkv.weight')).toBe(0.02)
    for (const name of ['attn.proj', 'shared.down', 'moe.experts.down'])
      expect(std(`blocks.3.${name}.weight`)).toBeCloseTo(0.02 / Math.sqrt(2 * 8), 12)
  })
})

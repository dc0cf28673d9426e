// The whole model on the engine against the oracle: loss, balance losses and every gradient.

import { describe, expect, it } from 'vitest'
import type { ModelConfig } from '../../worker/model.ts'
import { configOf, type Job } from '../unit/program-arbitraries.ts'
import { distance, ModelWorld, tokensOf, wholeModel } from './model-world.ts'
import { oracle } from './oracle-model.ts'

// f32 sums of a few hundred terms, relative to the largest element of each gradient: about 1e-6. A wrong term is of the order of 1.
const TOLERANCE = 1e-5
const SPREAD = 8

const TINY = {
  pairs: 2,
  dim: 16,
  feedForward: 24,
  sequence: 8,
  batch: 2,
  expertsPerRank: 4,
  capacityFactor: '8',
} as const
const ALONE = { worldSize: 1, expertParallelSize: 1 } as const

/** A large balance coefficient, so that its gradient shows beside that of the cross entropy. */
const withBalance = (config: ModelConfig): ModelConfig => ({ ...config, auxCoefficient: 0.5 })

async function compare(job: Job, model = wholeModel(configOf(job), SPREAD)) {
  const config = withBalance(configOf(job))
  await using world = await ModelWorld.start(config, { strategy: 'Sequential' }, model)
  const steps = await world.step(1, 0)
  const found = await world.gradients()
  const expected = await oracle(config, model, tokensOf(config, 1))
  const wrong = [...expected.gradients].flatMap(([name, gradient]) => {
    const off = distance(gradient, found.get(name) ?? [])
    return off < TOLERANCE ? [] : [`${name} is off by ${off.toExponential(1)}`]
  })
  const squares = [...expected.gradients.values()].reduce((all, list) => list.reduce((sum, g) => sum + g * g, all), 0)
  return { steps, expected, wrong, norm: Math.sqrt(squares), found }
}

const KINDS: Pick<Job, 'kind' | 'topK'>[] = [
  { kind: 'Top2', topK: 2 },
  { kind: 'Top2', topK: 1 },
  { kind: 'SharedExpert', topK: 1 },
  { kind: 'SharedExpert', topK: 2 },
  { kind: 'ScMoE', topK: 1 },
  { kind: 'ScMoE', topK: 2 },
]

describe('the engine agrees with the oracle', () => {
  it.each(KINDS)('$kind with top-$topK: loss, balance loss, every gradient, their norm', async kind => {
    const { steps, expected, wrong, norm } = await compare({ ...TINY, ...ALONE, ...kind })
    expect(wrong).toEqual([])
    expect(expected.dropped).toBe(0)
    expect(distance([expected.loss, ...expected.aux], [steps[0]?.loss ?? 0, ...(steps[0]?.aux ?? [])])).toBeLessThan(
      TOLERANCE,
    )
    expect(distance([norm], [steps[0]?.norm ?? 0])).toBeLessThan(TOLERANCE)
  })

  it.each(KINDS)('$kind with top-$topK where capacity drops a part of the choices', async kind => {
    const { steps, expected, wrong } = await compare({ ...TINY, ...ALONE, ...kind, pairs: 1, capacityFactor: '0.5' })
    expect(expected.dropped).toBeGreaterThan(0.2)
    expect(wrong).toEqual([])
    expect(distance([expected.loss], [steps[0]?.loss ?? 0])).toBeLessThan(TOLERANCE)
  })

  // Expert gradients averaged over the replicas only, not over all tokens, would be off by the factor worldSize / expertParallelSize;
  // a norm that counts dense gradients once per rank, or experts of one rank only, is off here by tens of percent.
  it.each([
    [2, 1],
    [2, 2],
    [4, 1],
    [4, 2],
    [4, 4],
  ])(
    'ScMoE on %i ranks, %i to an expert-parallel group: gradients, and one norm on all ranks',
    async (worldSize, expertParallelSize) => {
      const ranks = { worldSize, expertParallelSize, expertsPerRank: 4 / expertParallelSize }
      const { steps, wrong, norm, expected } = await compare({
        ...TINY,
        ...ranks,
        kind: 'ScMoE',
        topK: 1,
        pairs: 1,
        batch: 1,
      })
      expect(wrong).toEqual([])
      for (const step of steps) {
        expect(distance([norm], [step.norm])).toBeLessThan(TOLERANCE)
        expect(distance([expected.loss, ...expected.aux], [step.loss, ...step.aux])).toBeLessThan(TOLERANCE)
        expect(step).toEqual(steps[0])
      }
    },
  )

  const FOUR = {
    worldSize: 4,
    expertParallelSize: 4,
    expertsPerRank: 1,
    kind: 'ScMoE',
    topK: 1,
    pairs: 1,
    batch: 1,
  } as const

  it('where all tokens choose one expert, so that three of four ranks have no row to work on', async () => {
    const job: Job = { ...TINY, ...FOUR }
    const model = wholeModel(configOf(job), SPREAD)
    model.get('blocks.1.moe.router.weight')?.values.fill(0)
    const { steps, wrong, norm, found } = await compare(job, model)
    expect(wrong).toEqual([])
    expect(distance([norm], [steps[0]?.norm ?? 0])).toBeLessThan(TOLERANCE)
    const ofExperts = found.get('blocks.1.moe.experts.up.weight') ?? new Float64Array()
    expect(ofExperts.subarray(0, ofExperts.length / 4).some(value => value !== 0)).toBe(true)
    expect(ofExperts.subarray(ofExperts.length / 4).every(value => value === 0)).toBe(true)
  })

  it('where capacity 0 leaves every rank without rows', async () => {
    const { steps, wrong, expected } = await compare({ ...TINY, ...FOUR, capacityFactor: '0' })
    expect(wrong).toEqual([])
    expect(expected.dropped).toBeCloseTo(1, 9)
    expect(distance([expected.loss, ...expected.aux], [steps[0]?.loss ?? 0, ...(steps[0]?.aux ?? [])])).toBeLessThan(
      TOLERANCE,
    )
  })
})

// Tests of the whole model on the engine against the oracle: loss, balance and z-losses, every
// gradient, and their norm.

import { afterAll, describe, expect, it } from 'vitest'
import type { ModelConfig } from '../../../worker/model/config.ts'
import { distance, ModelWorld, Processes, tokensOf, type WholeModel, wholeModel } from '../../support/model-world.ts'
import { oracle } from '../../support/oracle/model.ts'
import { configOf, type Job } from '../../support/program-arbitraries.ts'

// Sums of a few hundred terms in f32 are off by about 1e-6 of the largest element of a gradient. A
// wrong term changes a gradient by about that element.
const TOLERANCE = 2e-5
const SPREAD = 8

const TINY = { units: 1, dim: 16, feedForward: 24, sequence: 8, batch: 2, capacityFactor: '8' } as const
const EXPERTS = 4
/**
 * Vocabulary size: more than the tokens of the tests, but small, because products take most of the
 * oracle's time.
 */
const VOCABULARY = 64
const ALONE = { worldSize: 1, expertParallelSize: 1 } as const

const processes = new Processes()
afterAll(() => processes[Symbol.asyncDispose]())

type Case = Partial<Job> & Pick<Job, 'kind'>

const jobOf = (shape: Case): Job => {
  const ranks = { ...ALONE, ...shape }
  return { ...TINY, expertsPerRank: EXPERTS / ranks.expertParallelSize, ...ranks }
}

/** The coefficients are large, so that errors in the gradients of these losses show. */
const withBalance = (config: ModelConfig): ModelConfig => ({
  ...config,
  vocabulary: VOCABULARY,
  auxCoefficient: 0.5,
  zCoefficient: config.zCoefficient > 0 ? 0.05 : 0,
})

/**
 * Results of the oracle by everything that it is told. It is not told how experts are spread over
 * ranks, so worlds of one size share a result.
 */
const known = new Map<string, ReturnType<typeof oracle>>()
function expectedOf(config: ModelConfig, model: WholeModel): ReturnType<typeof oracle> {
  const { expertParallelSize: _, ...told } = config
  const key = JSON.stringify([told, [...model.values()].map(({ values }) => values.reduce((sum, x) => sum + x))])
  const found = known.get(key) ?? oracle(told, model, tokensOf(told, 1))
  known.set(key, found)
  return found
}

async function compare(shape: Case, change: (model: WholeModel) => void = () => {}) {
  const config = withBalance(configOf(jobOf(shape)))
  const model = wholeModel(config, SPREAD)
  change(model)
  const world = await ModelWorld.start(processes, config, { model })
  const steps = await world.step(1, 0)
  const found = await world.gradients()
  const expected = await expectedOf(config, model)
  const wrong = [...expected.gradients].flatMap(([name, gradient]) => {
    const off = distance(gradient, found.get(name) ?? [])
    return off < TOLERANCE ? [] : [`${name} is off by ${off.toExponential(1)}`]
  })
  const squares = [...expected.gradients.values()].reduce((all, list) => list.reduce((sum, g) => sum + g * g, all), 0)
  const curve = { loss: expected.loss, aux: expected.aux, z: config.zCoefficient > 0 ? expected.z : [] }
  return { steps, expected: { ...expected, ...curve, norm: Math.sqrt(squares) }, wrong, found }
}

/**
 * Compares the engine with the oracle on every rank. The oracle's gradient of a tensor must not be
 * all zeros.
 */
async function agree(shape: Case, change?: (model: WholeModel) => void) {
  const result = await compare(shape, change)
  const { steps, expected, wrong } = result
  expect(wrong).toEqual([])
  for (const step of steps) {
    expect(step).toEqual(steps[0])
    expect(step.aux.length).toBe(expected.aux.length)
    expect(step.z.length).toBe(expected.z.length)
    const found = [step.loss, ...step.aux, ...step.z]
    expect(distance([expected.loss, ...expected.aux, ...expected.z], found)).toBeLessThan(TOLERANCE)
    expect(distance([expected.norm], [step.norm])).toBeLessThan(TOLERANCE)
  }
  return result
}

const nameOf = (shape: Case) =>
  Object.entries(shape)
    .map(([key, value]) => (key === 'kind' ? String(value) : `${key} ${value}`))
    .join(', ')
const table = (shapes: readonly Case[]) => shapes.map(shape => [nameOf(shape), shape] as const)

const PAIR = { worldSize: 2, expertParallelSize: 2, batch: 1 } as const
const POSITIONS = [1, 2, 3] as const
const GATES = ['DirectAdd', 'CG1', 'CG2'] as const

describe('the engine agrees with the oracle', () => {
  // Seen failing: the coefficient gate writing its input's gradient over that of the shared expert.
  it.each(
    table([
      { kind: 'Dense' },
      { kind: 'Top1' },
      { kind: 'Top2' },
      { kind: 'SharedExpert', gate: 'CG1' },
      { kind: 'SharedExpert', gate: 'CG2', topK: 2 },
      { kind: 'ScMoE' },
      { kind: 'ScMoE', topK: 2 },
      { kind: 'DGMoE' },
    ]),
  )('%s, two units: loss, balance loss, every gradient, their norm', async (_, shape) => {
    const { expected } = await agree({ ...shape, units: 2 })
    expect(expected.dropped).toBe(0)
  })

  // Seen failing: Pos-2 reading the stream of Pos-3; with CG2 the routed experts' gradient without
  // its coefficient.
  it.each(
    table(
      POSITIONS.flatMap(position =>
        GATES.flatMap(gate => [1, 2].map((topK): Case => ({ kind: 'ScMoE', position, gate, topK, ...PAIR }))),
      ),
    ),
  )('%s', async (_, shape) => {
    await agree(shape)
  })

  // Seen failing: the balance losses of both ways added instead of averaged. The choices of the
  // engine are tested in invariants.test.ts.
  it.each(table(POSITIONS.map((position): Case => ({ kind: 'DGMoE', position, ...PAIR }))))(
    '%s, whose two choices differ for every token',
    async (_, shape) => {
      const { expected } = await agree(shape)
      const ways = [...expected.experts].filter(([way]) => way.endsWith('routed'))
      expect(ways.length).toBe(TINY.units)
      for (const [way, routed] of ways) {
        const current = expected.experts.get(way.replace('routed', 'current')) ?? []
        expect(current.length).toBe(routed.length)
        expect(current.filter((expert, n) => expert === routed[n])).toEqual([])
      }
    },
  )

  // Seen failing: rows of second choices left out on the way back through encode.
  it.each(
    table([
      { kind: 'Top1' },
      { kind: 'Top2' },
      { kind: 'SharedExpert' },
      { kind: 'ScMoE' },
      { kind: 'ScMoE', topK: 2 },
      { kind: 'DGMoE' },
      { kind: 'ScMoE', capacityFactor: '1', ...PAIR },
      { kind: 'Top2', capacityFactor: '1', ...PAIR },
    ]),
  )('%s where capacity drops a part of the choices', async (_, shape) => {
    const { expected } = await agree({ capacityFactor: '0.5', ...shape })
    expect(expected.dropped).toBeGreaterThan(0.05)
  })

  // Seen failing, one option each: no z-loss in the gate's gradient, RoPE's gradient turned
  // forward, dense blocks undone in forward order, attention computed again from the gradient,
  // losses not divided by the number of micro-batches.
  it.each(
    table([
      { kind: 'ScMoE', capacityFactor: 'none' },
      { kind: 'Top2', capacityFactor: 'none', ...PAIR },
      { kind: 'ScMoE', z: '0.01' },
      { kind: 'DGMoE', z: '0.01', ...PAIR },
      { kind: 'ScMoE', llama: true, z: '0.01' },
      { kind: 'Top2', llama: true, ...PAIR },
      { kind: 'Dense', llama: true, tied: true },
      { kind: 'DGMoE', llama: true, tied: true },
      { kind: 'ScMoE', tied: true, ...PAIR },
      { kind: 'ScMoE', blocksPerUnit: 1, units: 2 },
      { kind: 'Top2', blocksPerUnit: 1, ...PAIR },
      { kind: 'ScMoE', blocksPerUnit: 4, position: 3 },
      { kind: 'SharedExpert', blocksPerUnit: 3, ...PAIR },
      { kind: 'ScMoE', recompute: true, ...PAIR },
      { kind: 'ScMoE', recompute: true, llama: true, position: 1 },
      { kind: 'DGMoE', recompute: true },
      { kind: 'ScMoE', microBatches: 2, z: '0.01', units: 2, ...PAIR },
      { kind: 'DGMoE', microBatches: 4, batch: 1 },
      { kind: 'Top2', microBatches: 2, recompute: true, llama: true },
    ]),
  )('%s', async (_, shape) => {
    await agree(shape)
  })

  // Seen failing: expert gradients not summed over their replicas, the loss a mean over one rank's
  // tokens. Expert gradients averaged over the replicas only, not over all tokens, would be off by
  // the factor worldSize / expertParallelSize; a norm that counts dense gradients once per rank, or
  // experts of one rank only, is off here by tens of percent.
  it.each(
    table(
      (['Top2', 'ScMoE', 'DGMoE', 'SharedExpert', 'Dense', 'Top1'] as const).flatMap(kind =>
        (
          [
            [2, 1],
            [4, 2],
            [4, 4],
          ] as const
        ).map(([worldSize, expertParallelSize]): Case => ({ kind, worldSize, expertParallelSize })),
      ),
    ),
  )('%s: gradients, and one norm on all ranks', async (_, shape) => {
    await agree({ ...shape, batch: 1 })
  })

  const FOUR: Case = { kind: 'ScMoE', worldSize: 4, expertParallelSize: 4, batch: 1 }

  // Seen failing, this and the next: a balance loss twice as large.
  it('where all tokens choose one expert, so that three of four ranks have no row to work on', async () => {
    const { found } = await agree(FOUR, model => model.get('blocks.1.moe.router.weight')?.values.fill(0))
    const ofExperts = found.get('blocks.1.moe.experts.up.weight') ?? new Float64Array()
    expect(ofExperts.subarray(0, ofExperts.length / 4).some(value => value !== 0)).toBe(true)
    expect(ofExperts.subarray(ofExperts.length / 4).every(value => value === 0)).toBe(true)
  })

  it('where capacity 0 leaves every rank without rows', async () => {
    const { expected } = await agree({ ...FOUR, capacityFactor: '0' })
    expect(expected.dropped).toBeCloseTo(1, 9)
  })
})

// Tests that one model computes the same on different numbers of ranks, in micro-batches, with
// recomputed activations, and under every schedule.

import { afterAll, describe, expect, it } from 'vitest'
import { emitTrain } from '../../../worker/emit/emit.ts'
import { type Choice, choices, describe as nameOf } from '../../../worker/schedule/schedule.ts'
import { distance, ModelWorld, Processes, type Step, wholeModel } from '../../support/model-world.ts'
import { configOf, type Job } from '../../support/program-arbitraries.ts'

const STEPS = 10
const SPREAD = 4
const EXPERTS = 4
const SEQUENCES = 4

const processes = new Processes()
afterAll(() => processes[Symbol.asyncDispose]())

type Case = Partial<Job> & Pick<Job, 'kind'>

/**
 * The same global batch and the same experts on every number of ranks. Capacity is never reached,
 * so no token is dropped.
 */
function jobOf(shape: Case): Job {
  const { worldSize = 1, expertParallelSize = worldSize, microBatches = 1 } = shape
  const sizes = { units: 2, dim: 16, feedForward: 32, sequence: 16, capacityFactor: '8', worldSize, expertParallelSize }
  const batch = SEQUENCES / worldSize / microBatches
  return { ...sizes, expertsPerRank: EXPERTS / expertParallelSize, batch, ...shape }
}

async function train(shape: Case, steps = STEPS) {
  const config = configOf(jobOf(shape))
  const world = await ModelWorld.start(processes, config, { model: wholeModel(config, SPREAD) })
  const curve = await world.steps(steps)
  return { world, curve, parameters: await world.parameters(), gradients: await world.gradients() }
}

const figures = (steps: readonly Step[]) => steps.flatMap(step => [step.loss, step.norm, ...step.aux, ...step.z])
const furthest = (a: Map<string, Float64Array>, b: Map<string, Float64Array>) =>
  Math.max(...[...a].map(([name, values]) => distance(values, b.get(name) ?? [])))

const WORLDS = [
  [2, 1],
  [2, 2],
  [4, 1],
  [4, 2],
  [4, 4],
] as const

const KINDS: Case[] = [
  { kind: 'ScMoE' },
  { kind: 'ScMoE', topK: 2, position: 1, gate: 'CG2', llama: true, z: '0.001' },
  { kind: 'Top2' },
  { kind: 'SharedExpert' },
  { kind: 'DGMoE' },
]
const table = KINDS.map(shape => [Object.values(shape).join(' '), shape] as const)

describe('one model on any number of ranks', () => {
  // Sums in another order round differently. After ten steps, the curve differs by 1e-7 and single
  // gradients by 3e-6. If expert gradients were averaged over their replicas, or clipped by the
  // norm of one rank, the curve would differ by percents from the second step on.
  it.each(table)('%s: 1, 2 and 4 ranks, EP 1, 2 and 4 give one loss curve', async (_, shape) => {
    const alone = await train(shape)
    expect(alone.curve.at(-1)?.loss).toBeLessThan((alone.curve[0]?.loss ?? 0) - 0.5)
    for (const [worldSize, expertParallelSize] of WORLDS) {
      const { curve, gradients } = await train({ ...shape, worldSize, expertParallelSize })
      expect(distance(figures(curve), figures(alone.curve))).toBeLessThan(5e-6)
      expect(furthest(gradients, alone.gradients)).toBeLessThan(1e-4)
    }
  })

  // Seen failing: gradients and losses set to zero before every micro-batch, off by half.
  it.each(table)('%s: 2 and 4 micro-batches are one large batch', async (_, shape) => {
    const whole = await train(shape, 3)
    for (const microBatches of [2, 4]) {
      const { curve } = await train({ ...shape, microBatches }, 3)
      // The balance loss of a batch is not the mean over its parts. Its gradient is small here.
      expect(distance([curve[0]?.loss ?? 0], [whole.curve[0]?.loss ?? 0])).toBeLessThan(2e-6)
      expect(distance([curve[0]?.norm ?? 0], [whole.curve[0]?.norm ?? 0])).toBeLessThan(0.02)
      expect(distance([curve[2]?.loss ?? 0], [whole.curve[2]?.loss ?? 0])).toBeLessThan(0.01)
    }
  })

  // Seen failing: the first gradient of each bucket left out of the sum, so that each rank kept its
  // own.
  it('leaves all ranks with the same dense parameters, bit by bit', async () => {
    const { world } = await train({ kind: 'ScMoE', worldSize: 4, expertParallelSize: 2 }, 3)
    const dense = [...wholeModel(world.config)].map(([name]) => name).filter(name => !name.includes('.experts.'))
    for (const name of dense) {
      const [first, ...others] = await world.read(name)
      for (const other of others) expect(other, name).toEqual(first)
    }
  })
})

describe('schedules', () => {
  const bits = async (world: ModelWorld) => ({ steps: await world.steps(2), parameters: await world.parameters() })

  it.each([
    ...table,
    ['ScMoE Pos-3, 2 micro-batches', { kind: 'ScMoE', position: 3, microBatches: 2 }],
    ['ScMoE recompute', { kind: 'ScMoE', recompute: true }],
    ['DGMoE drops', { kind: 'DGMoE', capacityFactor: '1' }],
    ['Top2 drops', { kind: 'Top2', capacityFactor: '1', llama: true }],
  ] as const)('%s: every schedule trains the same model, bit by bit', async (_, shape) => {
    const config = configOf(jobOf({ worldSize: 2, ...shape }))
    const model = wholeModel(config, SPREAD)
    const world = await ModelWorld.start(processes, config, { model })
    const expected = await bits(world)
    const others = spread(choices(emitTrain(config, 0), { strategy: 'Auto' }))
    expect(others.some(({ strategy }) => strategy === 'Pipelined')).toBe(true)
    for (const choice of others) {
      await world.load({ choice })
      await world.reset(model)
      expect({ choice: nameOf(choice), ...(await bits(world)) }).toEqual({ choice: nameOf(choice), ...expected })
    }
  })

  // Seen failing: the norm before the gate computed again from the stream of the current block.
  it.each(table)('%s: recomputed activations give the same bits', async (_, shape) => {
    const drops = { ...shape, worldSize: 2, capacityFactor: '1' }
    const kept = await train(drops, 3)
    const again = await train({ ...drops, recompute: true }, 3)
    expect({ curve: again.curve, parameters: again.parameters }).toEqual({
      curve: kept.curve,
      parameters: kept.parameters,
    })
  })
})

/**
 * Every pipelined schedule, every slot of each phase with one chunk, and every number of chunks.
 */
function spread(list: readonly Choice[]): Choice[] {
  const seen = new Set<string>()
  const isNew = (key: string) => !seen.has(key) && seen.add(key).size > 0
  return list.filter(choice => {
    if (choice.strategy !== 'Shortcut') return true
    const { forwardSlot, backwardSlot, chunks } = choice
    return [`forward ${forwardSlot}`, `backward ${backwardSlot}`, `chunks ${chunks}`].map(isNew).includes(true)
  })
}

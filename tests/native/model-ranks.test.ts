// The same model on different numbers of ranks, and under every schedule.

import { describe, expect, it } from 'vitest'
import { emitTrain } from '../../worker/program/emit.ts'
import { type Choice, choices } from '../../worker/schedule/schedule.ts'
import { configOf, type Job } from '../unit/program-arbitraries.ts'
import { distance, ModelWorld, type Step, wholeModel } from './model-world.ts'

const STEPS = 10
const SPREAD = 4
const SEQUENTIAL: Choice = { strategy: 'Sequential' }
const EXPERTS = 4
const SEQUENCES = 4

/** The global batch and the experts of the world stay; capacity never binds, so no rank drops what another would keep. */
function jobOf(kind: Job['kind'], worldSize: number, expertParallelSize: number): Job {
  const sizes = { pairs: 2, dim: 16, feedForward: 32, sequence: 16, capacityFactor: '8', topK: kind === 'Top2' ? 2 : 1 }
  const ranks = {
    worldSize,
    expertParallelSize,
    expertsPerRank: EXPERTS / expertParallelSize,
    batch: SEQUENCES / worldSize,
  }
  return { kind, ...sizes, ...ranks }
}

async function train(job: Job) {
  const config = configOf(job)
  await using world = await ModelWorld.start(config, SEQUENTIAL, wholeModel(config, SPREAD))
  const steps = await world.steps(STEPS)
  return { steps, gradients: await world.gradients() }
}

const curve = (steps: readonly Step[]) => steps.flatMap(step => [step.loss, step.norm, ...step.aux])
const furthest = (a: Map<string, Float64Array>, b: Map<string, Float64Array>) =>
  Math.max(...[...a].map(([name, values]) => distance(values, b.get(name) ?? [])))

describe('one model on any number of ranks', () => {
  // Rounding of sums in another order, grown over ten steps of training: 1e-7 in the curve, 3e-6 in single gradients.
  // Averaging expert gradients over their replicas, or clipping by a norm of one rank, changes the curve from the second step by percents.
  it.each(['ScMoE', 'Top2'] as const)('%s: 1, 2 and 4 ranks, EP 1, 2 and 4 give one loss curve', async kind => {
    const alone = await train(jobOf(kind, 1, 1))
    expect(alone.steps.at(-1)?.loss).toBeLessThan((alone.steps[0]?.loss ?? 0) - 0.5)
    for (const [worldSize, expertParallelSize] of [
      [2, 1],
      [2, 2],
      [4, 1],
      [4, 2],
      [4, 4],
    ] as const) {
      const { steps, gradients } = await train(jobOf(kind, worldSize, expertParallelSize))
      expect(distance(curve(steps), curve(alone.steps))).toBeLessThan(2e-6)
      expect(furthest(gradients, alone.gradients)).toBeLessThan(5e-5)
    }
  })
})

describe('schedules', () => {
  it.each(['ScMoE', 'SharedExpert'] as const)('%s: every schedule trains the same model, bit by bit', async kind => {
    const config = configOf(jobOf(kind, 2, 2))
    const model = wholeModel(config, SPREAD)
    await using world = await ModelWorld.start(config, SEQUENTIAL, model)
    const expected = { steps: await world.steps(3), parameters: await world.parameters() }
    const shortcuts = choices(emitTrain(config, 0), 'Shortcut')
    expect(shortcuts.length).toBe(kind === 'ScMoE' ? 16 : 4)
    for (const choice of shortcuts) {
      await world.load(choice)
      await world.reset(model)
      const found = { steps: await world.steps(3), parameters: await world.parameters() }
      expect({ choice, ...found }).toEqual({ choice, ...expected })
    }
  })
})

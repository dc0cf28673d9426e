// Random jobs and random op times for the property tests of model, program, schedule and memory.

import * as fc from 'fast-check'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../../worker/model.ts'
import type { Emitted } from '../../worker/program/program.ts'
import type { Choice, Times } from '../../worker/schedule/schedule.ts'

export interface Job {
  kind: 'Top2' | 'SharedExpert' | 'ScMoE'
  topK: number
  pairs: number
  worldSize: number
  expertParallelSize: number
  expertsPerRank: number
  dim?: number
  feedForward?: number
  sequence?: number
  batch?: number
  capacityFactor?: string
}

export function configOf(job: Job): ModelConfig {
  const spec = ScMoEJobSpec.parse({
    model: {
      kind: job.kind,
      blocks: 2 * job.pairs,
      hiddenSize: job.dim ?? 16,
      heads: 2,
      feedForwardSize: job.feedForward ?? 24,
      experts: job.expertParallelSize * job.expertsPerRank,
      topK: job.topK,
      capacityFactor: job.capacityFactor ?? '2',
    },
    training: { steps: 1, sequenceLength: job.sequence ?? 8, globalBatchSequences: job.worldSize * (job.batch ?? 1) },
    parallelism: { expertParallelSize: job.expertParallelSize },
  })
  return modelConfig(spec, job.worldSize)
}

/** World size and expert-parallel size. */
const RANKS: [number, number][] = [
  [1, 1],
  [2, 1],
  [2, 2],
  [4, 1],
  [4, 2],
  [4, 4],
]

export const job: fc.Arbitrary<Job> = fc
  .record({
    kind: fc.constantFrom('Top2' as const, 'SharedExpert' as const, 'ScMoE' as const),
    topK: fc.constantFrom(1, 2),
    pairs: fc.integer({ min: 1, max: 3 }),
    ranks: fc.constantFrom(...RANKS),
    expertsPerRank: fc.integer({ min: 2, max: 3 }),
    capacityFactor: fc.constantFrom('0.5', '1', '2', '8'),
  })
  .map(({ ranks: [worldSize, expertParallelSize], ...rest }) => Object.assign(rest, { worldSize, expertParallelSize }))

/** A wish; where the model lacks the slot it is taken modulo what there is. */
export interface Wish {
  shortcut: boolean
  forward: number
  backward: number
}
export const wish: fc.Arbitrary<Wish> = fc.record({ shortcut: fc.boolean(), forward: fc.nat(3), backward: fc.nat(3) })

export function choiceOf({ shortcut, forward, backward }: Wish, available: readonly Choice[]): Choice {
  const shortcuts = available.filter(choice => choice.strategy === 'Shortcut')
  const picked = shortcuts[(4 * forward + backward) % Math.max(shortcuts.length, 1)]
  return shortcut && picked ? picked : { strategy: 'Sequential' }
}

/** Durations that repeat with a period unrelated to the model's; with nothing but ties, too. */
export const pattern = fc.oneof(
  fc.constant([0]),
  fc.array(fc.constantFrom(0, 1, 10, 100), { minLength: 1, maxLength: 41 }),
  fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 41 }),
)
export const timesOf = (emitted: Emitted, list: readonly number[]): Times =>
  Float64Array.from(emitted.ops, (_, index) => list[(index * 7) % list.length] ?? 0)

// Random jobs and random op times for the property tests of model, program, schedule and memory.

import * as fc from 'fast-check'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'
import type { Emitted } from '../../worker/program/program.ts'
import type { Choice, Profile, Times } from '../../worker/schedule/schedule.ts'

export interface Job {
  kind: ModelConfig['kind']
  topK?: number
  units: number
  worldSize: number
  expertParallelSize: number
  expertsPerRank: number
  blocksPerUnit?: number
  position?: number
  gate?: ModelConfig['coefficientGate']
  /** RMSNorm, SwiGLU, RoPE, two query heads to a key head, no biases. */
  llama?: boolean
  tied?: boolean
  z?: string
  microBatches?: number
  recompute?: boolean
  precision?: ModelConfig['precision']
  dim?: number
  feedForward?: number
  sequence?: number
  batch?: number
  capacityFactor?: string
}

const LLAMA = {
  norm: 'RMSNorm',
  activation: 'SwiGLU',
  positions: 'RoPE',
  heads: 4,
  keyValueHeads: 2,
  biases: false,
} as const

export function configOf(job: Job): ModelConfig {
  const { blocksPerUnit = 2, microBatches = 1 } = job
  const shared = job.kind === 'ScMoE' || job.kind === 'SharedExpert'
  const shortcut = job.kind === 'ScMoE' || job.kind === 'DGMoE'
  const spec = ScMoEJobSpec.parse({
    model: {
      kind: job.kind,
      blocks: blocksPerUnit * job.units,
      moeLayerFrequency: blocksPerUnit,
      hiddenSize: job.dim ?? 16,
      heads: 2,
      feedForwardSize: job.feedForward ?? 24,
      experts: job.expertParallelSize * job.expertsPerRank,
      topK: job.topK,
      capacityFactor: job.capacityFactor ?? '2',
      tieEmbeddings: job.tied ?? false,
      routerZLossCoefficient: job.z ?? '0',
      ...(shared && job.gate ? { coefficientGate: job.gate } : {}),
      ...(shortcut && job.position && blocksPerUnit > 1 ? { shortcutPosition: job.position } : {}),
      ...(job.llama ? LLAMA : {}),
    },
    training: {
      steps: 1,
      sequenceLength: job.sequence ?? 8,
      globalBatchSequences: job.worldSize * (job.batch ?? 1) * microBatches,
      microBatches,
      recompute: job.recompute ?? false,
      precision: job.precision ?? 'float32',
    },
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

const KINDS = ['Dense', 'Top1', 'Top2', 'SharedExpert', 'ScMoE', 'DGMoE'] as const

export const job: fc.Arbitrary<Job> = fc
  .record({
    kind: fc.constantFrom(...KINDS),
    scmoeTopK: fc.constantFrom(1, 2),
    units: fc.integer({ min: 1, max: 3 }),
    blocksPerUnit: fc.constantFrom(1, 2, 2, 3),
    position: fc.constantFrom(1, 2, 3),
    gate: fc.constantFrom('DirectAdd' as const, 'CG1' as const, 'CG2' as const),
    llama: fc.boolean(),
    tied: fc.boolean(),
    z: fc.constantFrom('0', '0.001'),
    recompute: fc.boolean(),
    precision: fc.constantFrom('float32' as const, 'bfloat16' as const),
    microBatches: fc.constantFrom(1, 1, 3),
    ranks: fc.constantFrom(...RANKS),
    expertsPerRank: fc.integer({ min: 2, max: 3 }),
    capacityFactor: fc.constantFrom('0.5', '1', '2', '8', 'none'),
  })
  .map(({ ranks: [worldSize, expertParallelSize], scmoeTopK, ...rest }) => {
    const topK = rest.kind === 'ScMoE' ? { topK: scmoeTopK } : {}
    return { ...rest, ...topK, worldSize, expertParallelSize }
  })

/** A number that stands for one of the schedules of a program. */
export const wish = fc.nat(10_000)
export const choiceOf = (wanted: number, available: readonly Choice[]): Choice =>
  available[wanted % available.length] ?? { strategy: 'Sequential' }

/** Durations that repeat with a period unrelated to the model's, or that are all equal. */
export const pattern = fc.oneof(
  fc.constant([0]),
  fc.array(fc.constantFrom(0, 1, 10, 100), { minLength: 1, maxLength: 41 }),
  fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 41 }),
)
export const timesOf = (emitted: Emitted, list: readonly number[]): Times =>
  Float64Array.from(emitted.ops, (_, index) => list[(index * 7) % list.length] ?? 0)

export interface Measured {
  pattern: readonly number[]
  /** Rank r takes 1 + r * skew times as long as rank 0. */
  skew: number
  contention: number
  latency: number
}
export const measured: fc.Arbitrary<Measured> = fc.record({
  pattern,
  skew: fc.constantFrom(0, 0, 0.25),
  contention: fc.constantFrom(0, 0, 0.5, 1),
  latency: fc.constantFrom(0, 5),
})
export function profileOf(emitted: Emitted, worldSize: number, shape: Measured): Profile {
  const { contention, latency } = shape
  const times = Array.from({ length: worldSize }, (_, rank) =>
    timesOf(emitted, shape.pattern).map(time => time * (1 + rank * shape.skew)),
  )
  return { times, contention, latency }
}

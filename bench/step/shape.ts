// The models of the step benchmark, and the speed of another program with them. Pure.

import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'

export interface Shape {
  hidden: number
  heads: number
  sequence: number
  /** The sequences of one rank. */
  sequences: number
  /** The limit of the links in the rows that have one. */
  linkMbit: number
}

export const SHAPES: readonly Shape[] = [
  { hidden: 256, heads: 4, sequence: 256, sequences: 8, linkMbit: 300 },
  { hidden: 512, heads: 8, sequence: 512, sequences: 4, linkMbit: 150 },
]
export const ALONE: Shape = { hidden: 512, heads: 8, sequence: 512, sequences: 2, linkMbit: 0 }
export const QUICK: Shape = { hidden: 32, heads: 2, sequence: 16, sequences: 2, linkMbit: 300 }

export type Kind = 'Top2' | 'ScMoE'

/** Two pairs of blocks, 8 experts, a vocabulary of bytes. */
export function configOf({ hidden, heads, sequence, sequences }: Shape, kind: Kind, ranks: number): ModelConfig {
  const spec = ScMoEJobSpec.parse({
    model: { kind, blocks: 4, hiddenSize: hidden, heads, feedForwardSize: 4 * hidden, experts: 8 },
    training: { steps: 1, sequenceLength: sequence, globalBatchSequences: ranks * sequences },
    workers: { replicas: ranks },
  })
  return modelConfig(spec, ranks)
}

/**
 * Tokens per second of two ranks of one thread each with PyTorch 2.15 and gloo, capacity padded, on
 * another machine with two processors: first without a limit, then with the limit of the shape.
 * Top2 is sequential, ScMoE overlaps.
 */
const PYTORCH: Readonly<Record<number, Readonly<Record<Kind, readonly [number, number]>>>> = {
  256: { Top2: [2861, 1496], ScMoE: [3566, 2460] },
  512: { Top2: [666, 346], ScMoE: [958, 528] },
}

export const pytorchTokensPerSecond = (hidden: number, kind: Kind, isLimited: boolean): number | null =>
  PYTORCH[hidden]?.[kind][isLimited ? 1 : 0] ?? null

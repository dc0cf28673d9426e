// The models of the step benchmark. Pure.

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

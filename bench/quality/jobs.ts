// The kinds of model that the quality benchmark compares, and the job of each run. Jobs differ only
// in the architecture. Pure, apart from a hash.

import { createHash } from 'node:crypto'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'
import { parameterCounts } from '../../worker/model/tensors.ts'

const positions = [1, 2, 3] as const
const gates = ['DirectAdd', 'CG1', 'CG2'] as const
type ModelInput = { kind: 'Dense' | 'Top1' | 'Top2' | 'SharedExpert' | 'ScMoE' | 'DGMoE' } & {
  shortcutPosition?: (typeof positions)[number]
  coefficientGate?: (typeof gates)[number]
}

/**
 * Models by their names in tables and on the command line. All have the same width and the same
 * number of experts, as in the comparison of arXiv 2404.05019. /
 */
export const KINDS: Readonly<Record<string, ModelInput>> = {
  Dense: { kind: 'Dense' },
  Top1: { kind: 'Top1' },
  Top2: { kind: 'Top2' },
  SharedExpert: { kind: 'SharedExpert' },
  DGMoE: { kind: 'DGMoE' },
  ...Object.fromEntries(
    positions.flatMap(shortcutPosition =>
      gates.map(coefficientGate => [
        `ScMoE Pos-${shortcutPosition} ${coefficientGate}`,
        { kind: 'ScMoE', shortcutPosition, coefficientGate } as const,
      ]),
    ),
  ),
}
export const KIND_NAMES = Object.keys(KINDS)
/** The other kinds are compared with this one, seed by seed. */
export const BASELINE = 'Top2'

/** One run: all values that its result depends on, apart from the code. */
export interface Job {
  kind: string
  seed: number
  steps: number
  hidden: number
  sequences: number
  sequence: number
  learningRate: string
  /** Held-out batches at the end. They are the same for every kind and seed. */
  evaluationBatches: number
  /** The load of the experts is measured in this number of last steps. */
  loadSteps: number
}

/** The job of a run, with a tenth of its steps as warm-up. Throws for an unknown kind. */
export function specOf({ kind, seed, steps, hidden, sequences, sequence, learningRate }: Job): ScMoEJobSpec {
  const model = KINDS[kind]
  if (!model) throw new Error(`there is no kind "${kind}"; there are ${KIND_NAMES.join(', ')}`)
  return ScMoEJobSpec.parse({
    model: {
      ...model,
      blocks: 4,
      hiddenSize: hidden,
      heads: Math.max(1, hidden / 32),
      feedForwardSize: 4 * hidden,
      experts: 8,
    },
    training: {
      steps,
      seed,
      globalBatchSequences: sequences,
      sequenceLength: sequence,
      optimizer: { learningRate, warmupSteps: Math.ceil(steps / 10) },
    },
    data: { builtin: 'sotu' },
  })
}

/** The model on one rank, which holds all experts; more ranks together would compute the same. */
export const configOf = (job: Job): ModelConfig => modelConfig(specOf(job), 1)

export const parametersOf = (job: Job): { total: number; active: number } => parameterCounts(configOf(job))

/** File name of a run's result without ending. It differs between any two jobs. */
export function keyOf(job: Job): string {
  const text = JSON.stringify([specOf(job), job.evaluationBatches, job.loadSteps])
  const digest = createHash('sha256').update(text).digest('hex').slice(0, 12)
  return `${job.kind.toLowerCase().replaceAll(' ', '-')}-seed${job.seed}-${digest}`
}

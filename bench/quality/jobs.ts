// The runs of the quality benchmark: which kinds, and the job of each. Kinds differ in the architecture alone. Pure but for the hash.

import { createHash } from 'node:crypto'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type ModelConfig, modelConfig, parameterCounts } from '../../worker/model.ts'

const positions = [1, 2, 3] as const
const gates = ['DirectAdd', 'CG1', 'CG2'] as const
type ModelInput = { kind: 'Dense' | 'Top1' | 'Top2' | 'SharedExpert' | 'ScMoE' | 'DGMoE' } & {
  shortcutPosition?: (typeof positions)[number]
  coefficientGate?: (typeof gates)[number]
}

/** By the name in tables and on the command line. Equal width and number of experts, as in the comparison of arXiv 2404.05019. */
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
/** What the others are compared with, seed by seed. */
export const BASELINE = 'Top2'

/** One run: everything that its result depends on beside the code. */
export interface Job {
  kind: string
  seed: number
  steps: number
  hidden: number
  sequences: number
  sequence: number
  learningRate: string
  /** Held-out batches at the end: the same ones whatever the kind and the seed. */
  evaluationBatches: number
  /** The experts' load is that of so many last steps. */
  loadSteps: number
}

/** A tenth of the steps warms up. Throws on an unknown kind. */
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

/** One rank holds all experts: what is computed is what more ranks compute together. */
export const configOf = (job: Job): ModelConfig => modelConfig(specOf(job), 1)

export const parametersOf = (job: Job): { total: number; active: number } => parameterCounts(configOf(job))

/** File name of a run's result, without ending; another job has another. */
export function keyOf(job: Job): string {
  const text = JSON.stringify([specOf(job), job.evaluationBatches, job.loadSteps])
  const digest = createHash('sha256').update(text).digest('hex').slice(0, 12)
  return `${job.kind.toLowerCase().replaceAll(' ', '-')}-seed${job.seed}-${digest}`
}

// Decides how a run goes on from a checkpoint, and what it says about settings that are others than
// those of the runs before it. Pure.

import type { Trained } from '../checkpoint/contents.ts'
import { WorkerFailure } from '../failure.ts'
import { continued, type LearningRate } from './learning-rate.ts'

export interface Resumption {
  learningRate: LearningRate
  /** Sentences for the log. */
  warnings: string[]
}

/**
 * `before` is what the checkpoint of `step` says, and `wanted` what the job says. Throws
 * `badConfig` if the tokens are of another kind, because the same numbers then mean something else.
 */
export function resumption(before: Trained | undefined, wanted: Trained, step: number): Resumption {
  const learningRate = continued(before?.learningRate, wanted.learningRate, step)
  if (step === 0) return { learningRate, warnings: [] }
  if (before === undefined) {
    const { totalSteps } = wanted.learningRate
    const unknown = `the checkpoint does not say its learning rate: it is taken to be that of a job of ${totalSteps} steps`
    return { learningRate, warnings: [unknown] }
  }
  const [then, now] = [before.data, wanted.data]
  if (areBytes(then) !== areBytes(now)) {
    throw new WorkerFailure(
      'badConfig',
      `The checkpoint of step ${step} was trained on ${then.tokens} of ${then.source}, but spec.data.tokens is ${now.tokens}, in which the same numbers mean something else: use data of that kind, or another output folder or volume.`,
    )
  }
  return { learningRate, warnings: [...dataWarnings(then, now), ...rateWarnings(before, wanted, step)] }
}

const areBytes = ({ tokens }: Trained['data']) => tokens === 'bytes'

function dataWarnings(then: Trained['data'], now: Trained['data']): string[] {
  const told = ({ source, tokens, length }: Trained['data']) => `${source} (${length} ${tokens})`
  const same = then.source === now.source && then.length === now.length
  return same ? [] : [`the data changes here: until now it was ${told(then)}, from here on it is ${told(now)}`]
}

function rateWarnings({ learningRate: then }: Trained, { learningRate: now }: Trained, step: number): string[] {
  const warnings: string[] = []
  if (then.peak !== now.peak)
    warnings.push(`the learning rate changes here: its peak was ${then.peak}, from here on it is ${now.peak}`)
  if (then.warmupSteps !== now.warmupSteps)
    warnings.push(
      `warmupSteps was ${then.warmupSteps} and is ${now.warmupSteps}: the learning rate goes on from the value that it had at step ${step}`,
    )
  if (then.totalSteps !== now.totalSteps && step > now.warmupSteps)
    warnings.push(
      `steps was ${then.totalSteps} and is ${now.totalSteps}: the learning rate decays from the value that it had at step ${step}`,
    )
  return warnings
}

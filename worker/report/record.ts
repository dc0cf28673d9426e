// The state of a run as plain data, kept up to date by the training loop. It makes the progress
// record of the contract.

import type { Progress } from '../../crds/contract.ts'
import type { WorkerConfig } from '../config.ts'
import { median } from '../median.ts'
import { hiddenPercentOf } from '../schedule/schedule.ts'
import type { Losses } from './losses.ts'

/**
 * One optimizer step. Times are in milliseconds; those of communication are means over the ranks.
 */
export interface StepFigures {
  loss: number
  milliseconds: number
  /** Time that the all-to-alls took. */
  communication: number
  /** The part of that time in which the compute queue stood still. */
  waited: number
  /** All-to-alls as a share of the MoE layers' time, 0 to 1. */
  shareOfMoe: number
}

/** Number of steps that the reported rates are taken over. */
const WINDOW = 20

const milli = (value: number | undefined) => (value === undefined ? undefined : Math.round(value * 1000))

export interface Rates {
  /** Median over the steps. */
  stepMilliseconds: number
  /** Tokens of all ranks together. */
  tokensPerSecond: number
  /** Time that the all-to-alls of a step take. */
  communicationMilliseconds?: number
  /** The share of that time in which computation went on. */
  overlapPercent?: number
  /** All-to-alls as a share of the MoE layers' time, gate to decode. */
  communicationShareOfMoePercent?: number
}

export class RunRecord {
  readonly #config: WorkerConfig
  readonly #tokensPerStep: number
  #step = 0
  #window: StepFigures[] = []
  #schedule: string | undefined
  #checkpoint: { step: number; time: string } | undefined
  /** `first` is from the beginning of the job, also in a run that was resumed. */
  #losses: Losses = { first: {}, last: {} }

  constructor(config: WorkerConfig) {
    this.#config = config
    this.#tokensPerStep = config.spec.training.globalBatchSequences * config.spec.training.sequenceLength
  }

  resumeAt(step: number, losses: Losses, savedTime: string): void {
    this.#step = step
    this.#losses = structuredClone(losses)
    this.#checkpoint = { step, time: savedTime }
  }

  /** `step` counts steps done. */
  stepDone(step: number, figures: StepFigures): void {
    this.#step = step
    this.#losses.last.loss = figures.loss
    this.#losses.first.loss ??= figures.loss
    this.#window.push(figures)
    if (this.#window.length > WINDOW) this.#window.shift()
  }

  /** `step` counts steps done. */
  evaluated(step: number, loss: number): void {
    const { first, last } = this.#losses
    Object.assign(last, { evaluationLoss: loss, evaluationStep: step })
    if (first.evaluationLoss === undefined) Object.assign(first, { evaluationLoss: loss, evaluationStep: step })
  }

  /** Takes the schedule of the next steps. If it is another one, the rates start anew. */
  scheduled(description: string): void {
    if (description !== this.#schedule) this.#window = []
    this.#schedule = description
  }

  checkpointed(step: number): void {
    this.#checkpoint = { step, time: new Date().toISOString() }
  }

  get step(): number {
    return this.#step
  }

  get losses(): Losses {
    return structuredClone(this.#losses)
  }

  get schedule(): string | undefined {
    return this.#schedule
  }

  get checkpointStep(): number | undefined {
    return this.#checkpoint?.step
  }

  /**
   * Rates over the window; undefined before the first step. Without all-to-alls between ranks there
   * are none of communication.
   */
  rates(): Rates | undefined {
    if (this.#window.length === 0) return undefined
    const stepMilliseconds = median(this.#window.map(step => step.milliseconds))
    const rates = { stepMilliseconds, tokensPerSecond: (1000 * this.#tokensPerStep) / stepMilliseconds }
    const communication = sum(this.#window.map(step => step.communication))
    if (this.#config.expertParallelSize === 1 || communication === 0) return rates
    const waited = sum(this.#window.map(step => step.waited))
    return {
      ...rates,
      communicationMilliseconds: communication / this.#window.length,
      overlapPercent: hiddenPercentOf({ waited, communication }),
      communicationShareOfMoePercent: (100 * sum(this.#window.map(step => step.shareOfMoe))) / this.#window.length,
    }
  }

  progress(): Progress {
    const { jobUid, attempt, rank, spec } = this.#config
    const { first, last } = this.#losses
    const rates = this.rates()
    const optional = {
      lossMilli: milli(last.loss),
      initialLossMilli: milli(first.loss),
      evaluationLossMilli: milli(last.evaluationLoss),
      evaluationStep: last.evaluationStep,
      initialEvaluationLossMilli: milli(first.evaluationLoss),
      ...(rates && {
        tokensPerSecond: Math.round(rates.tokensPerSecond),
        stepTimeMilliseconds: Math.round(rates.stepMilliseconds),
        communicationMilliseconds: rounded(rates.communicationMilliseconds),
        overlapPercent: rounded(rates.overlapPercent),
        communicationShareOfMoePercent: rounded(rates.communicationShareOfMoePercent),
        estimatedRemainingSeconds: Math.ceil(((spec.training.steps - this.#step) * rates.stepMilliseconds) / 1000),
      }),
      schedule: this.#schedule,
      lastCheckpointStep: this.#checkpoint?.step,
      lastCheckpointTime: this.#checkpoint?.time,
    }
    return {
      jobUid,
      attempt,
      rank,
      step: this.#step,
      totalSteps: spec.training.steps,
      ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)),
      observedTime: new Date().toISOString(),
    }
  }
}

const rounded = (value: number | undefined) => (value === undefined ? undefined : Math.round(value))
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

// The schedules of a run one after another: when they are chosen anew, and what each was predicted and then measured to take.

import type { Logger } from 'pino'
import { Drift } from './drift.ts'
import type { Plan, Replanned } from './profile.ts'
import type { RunRecord } from './record.ts'

/** A schedule chosen from measured times; milliseconds of an optimizer step. */
export interface PlanFigures {
  /** Steps done when it was chosen. */
  step: number
  schedule: string
  predictedMilliseconds: number
  /** Predicted with every all-to-all waited for. */
  sequentialMilliseconds: number | undefined
  /** Median of the first five steps with it; undefined until they are done. */
  measuredMilliseconds: number | undefined
}

export interface StepDone {
  step: number
  /** Engine time, mean over ranks: equal on all of them. */
  milliseconds: number
  /** A checkpoint was being written on some rank: its time says nothing about the schedule. */
  disturbed: boolean
}

export interface PlansOptions {
  plan: Plan
  record: RunRecord
  /** Of rank 0. */
  log: Logger | undefined
}

/** All ranks make the same calls after the same steps. */
export class Plans {
  readonly #options: PlansOptions
  readonly #drift = new Drift()
  readonly #list: PlanFigures[] = []
  #last: Replanned | undefined

  constructor(options: PlansOptions) {
    this.#options = options
  }

  /** Chooses anew after the profiled steps, and has steps profiled again when they take longer or shorter than they did; collective. */
  async follow({ step, milliseconds, disturbed }: StepDone): Promise<void> {
    const { plan, log } = this.#options
    if (plan.due) return this.#replan(step)
    const current = this.#list.at(-1)
    if (current === undefined || disturbed) return
    const drifted = this.#drift.observe(milliseconds)
    const { expected } = this.#drift
    if (current.measuredMilliseconds === undefined && expected !== undefined && !plan.measuring) {
      current.measuredMilliseconds = expected
      log?.info(current, 'step as predicted and as measured')
    }
    if (!drifted) return
    log?.info(
      { step, expectedMilliseconds: expected, milliseconds },
      'steps have drifted by more than 20 %: measuring again',
    )
    this.#drift.planned()
    plan.measureAgain()
  }

  async #replan(step: number): Promise<void> {
    const { plan, record, log } = this.#options
    this.#last = await plan.replan()
    this.#drift.planned()
    record.scheduled(plan.description)
    const { schedule, predictedMilliseconds, sequentialMilliseconds } = this.#last
    const chosen = { step, schedule, predictedMilliseconds, sequentialMilliseconds, measuredMilliseconds: undefined }
    this.#list.push(chosen)
    log?.info(chosen, `schedule from measured times: ${schedule}`)
  }

  /** For summary.json: the last one, then all. */
  get summary() {
    const { candidates } = this.#last ?? {}
    const { predictedMilliseconds, sequentialMilliseconds, measuredMilliseconds } = this.#list.at(-1) ?? {}
    return { predictedMilliseconds, sequentialMilliseconds, measuredMilliseconds, plans: this.#list, candidates }
  }

  /** What the last one was chosen from. */
  get measured(): Replanned['measured'] | undefined {
    return this.#last?.measured
  }
}

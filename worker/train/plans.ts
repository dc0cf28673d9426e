// The schedules of a run one after another: when they are chosen anew, and what each was predicted and then measured to take.

import type { Logger } from 'pino'
import type { RunRecord } from '../report/record.ts'
import { Trial } from '../schedule/schedule.ts'
import { Drift } from './drift.ts'
import type { Plan, Replanned } from './programs.ts'

/** A schedule chosen from measured times; milliseconds of an optimizer step. */
export interface PlanFigures {
  /** Steps done when it was chosen. */
  step: number
  schedule: string
  predictedMilliseconds: number
  /** Predicted with every all-to-all waited for. */
  sequentialMilliseconds: number | undefined
  /** Median of the first steps with it, five or those of a trial; undefined until they are done. */
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
  plan: Pick<Plan, 'due' | 'measuring' | 'measureAgain' | 'replan' | 'use' | 'description'>
  record: Pick<RunRecord, 'scheduled'>
  /** Of rank 0. */
  log: Logger | undefined
}

/** All ranks make the same calls after the same steps. */
export class Plans {
  readonly #options: PlansOptions
  readonly #drift = new Drift()
  readonly #list: PlanFigures[] = []
  #last: Replanned | undefined
  /** While steps decide between schedules whose predictions are close. */
  #trial: Trial | undefined

  constructor(options: PlansOptions) {
    this.#options = options
  }

  /** Chooses anew after the profiled steps, by trial where predictions are close, and has steps profiled again when they take longer or shorter than they did; collective. */
  async follow({ step, milliseconds, disturbed }: StepDone): Promise<void> {
    const { plan, log } = this.#options
    if (plan.due) return this.#replan(step)
    const current = this.#list.at(-1)
    if (current === undefined || disturbed) return
    if (this.#trial) return this.#try(this.#trial, step, milliseconds)
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
    const chosen = this.#chosen(step, 0)
    log?.info(chosen, `schedule from measured times: ${chosen.schedule}`)
    this.#drift.planned()
    record.scheduled(plan.description)
    const { contenders } = this.#last
    if (contenders.length > 1) this.#trial = new Trial(contenders.length)
  }

  /** Goes on to the next contender once the one before has had its steps, and after the last to the fastest. */
  #try(trial: Trial, step: number, milliseconds: number): void {
    const { plan, record, log } = this.#options
    const before = trial.current
    trial.observe(milliseconds)
    if (trial.current === before) return
    if (!trial.over) {
      plan.use(trial.current)
      record.scheduled(plan.description)
      return
    }
    this.#trial = undefined
    plan.use(trial.best)
    const { contenders = [] } = this.#last ?? {}
    const tried = contenders.map((contender, i) => ({ ...contender, measured: trial.medians[i] }))
    log?.info({ step, tried }, `schedules with predictions within 3 % were tried; the fastest is ${plan.description}`)
    const current = this.#list.at(-1)
    if (current) current.measuredMilliseconds = trial.medians[0]
    if (trial.best !== 0) this.#chosen(step, trial.best).measuredMilliseconds = trial.medians[trial.best]
    this.#drift.planned()
    record.scheduled(plan.description)
  }

  #chosen(step: number, contender: number): PlanFigures {
    const { contenders = [], sequentialMilliseconds } = this.#last ?? {}
    const { schedule = '', predicted = Number.NaN } = contenders[contender] ?? {}
    const chosen: PlanFigures = {
      step,
      schedule,
      predictedMilliseconds: predicted,
      sequentialMilliseconds,
      measuredMilliseconds: undefined,
    }
    this.#list.push(chosen)
    return chosen
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

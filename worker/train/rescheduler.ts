// When the schedule of a run is chosen anew: after the profiled steps, by trial if predictions are
// close, and again when steps become slower or faster for good.

import type { Logger } from 'pino'
import type { RunRecord } from '../report/record.ts'
import { Trial } from '../schedule/schedule.ts'
import { Drift } from './drift.ts'
import { ScheduleHistory } from './history.ts'
import type { Profiler } from './profiler.ts'
import type { Programs } from './programs.ts'

export interface StepDone {
  step: number
  /** Engine time, mean over ranks; the same on all of them. */
  milliseconds: number
  /** Whether a rank was writing a checkpoint. The time then says nothing about the schedule. */
  disturbed: boolean
}

export interface ReschedulerOptions {
  profiler: Pick<Profiler, 'due' | 'measuring' | 'again' | 'profile'>
  programs: Pick<Programs, 'choose' | 'use' | 'description'>
  record: Pick<RunRecord, 'scheduled'>
  /** Only rank 0 has one. */
  log: Logger | undefined
}

/** All ranks make the same calls after the same steps. */
export class Rescheduler {
  readonly history = new ScheduleHistory()
  readonly #options: ReschedulerOptions
  readonly #drift = new Drift()
  /** Present while steps decide between schedules whose predictions are close. */
  #trial: Trial | undefined

  constructor(options: ReschedulerOptions) {
    this.#options = options
  }

  /** Takes the time of a step, and loads another schedule if it is time to; collective. */
  async follow({ step, milliseconds, disturbed }: StepDone): Promise<void> {
    const { profiler, log } = this.#options
    if (profiler.due) return this.#choose(step)
    const { current } = this.history
    if (current === undefined || disturbed) return
    if (this.#trial) return this.#try(this.#trial, step, milliseconds)
    const drifted = this.#drift.observe(milliseconds)
    const { expected } = this.#drift
    if (current.measuredMilliseconds === undefined && expected !== undefined && !profiler.measuring) {
      current.measuredMilliseconds = expected
      log?.info(current, 'step as predicted and as measured')
    }
    if (!drifted) return
    log?.info(
      { step, expectedMilliseconds: expected, milliseconds },
      'steps have drifted by more than 20 %: measuring again',
    )
    this.#drift.restart()
    profiler.again()
  }

  async #choose(step: number): Promise<void> {
    const { profiler, programs, record, log } = this.#options
    const choices = programs.choose(await profiler.profile())
    const chosen = this.history.chosen(step, choices)
    log?.info(chosen, `schedule from measured times: ${chosen.schedule}`)
    this.#drift.restart()
    record.scheduled(programs.description)
    const { length } = choices.contenders
    if (length > 1) this.#trial = new Trial(length)
  }

  /**
   * Loads the next contender when the present one has had its steps, and the fastest at the end.
   */
  #try(trial: Trial, step: number, milliseconds: number): void {
    const { programs, record, log } = this.#options
    const before = trial.current
    trial.observe(milliseconds)
    if (trial.current === before) return
    if (!trial.over) {
      programs.use(trial.current)
      record.scheduled(programs.description)
      return
    }
    this.#trial = undefined
    programs.use(trial.best)
    const { contenders, current } = this.history
    const tried = contenders.map((contender, i) => ({ ...contender, measured: trial.medians[i] }))
    log?.info(
      { step, tried },
      `schedules with predictions within 3 % were tried; the fastest is ${programs.description}`,
    )
    if (current) current.measuredMilliseconds = trial.medians[0]
    if (trial.best !== 0) this.history.preferred(step, trial.best).measuredMilliseconds = trial.medians[trial.best]
    this.#drift.restart()
    record.scheduled(programs.description)
  }
}

// The schedules of a run, one after another, with the time that a step was predicted to take and
// the time that it then took.

import type { Choices, Predicted } from './programs.ts'

/** A schedule that was chosen from measured times; milliseconds of an optimizer step. */
export interface ScheduleFigures {
  /** Steps done when it was chosen. */
  step: number
  schedule: string
  predictedMilliseconds: number
  /** Predicted if every all-to-all is waited for. */
  sequentialMilliseconds: number | undefined
  /** Median of the schedule's first five steps, or of its trial; undefined before that. */
  measuredMilliseconds: number | undefined
}

export class ScheduleHistory {
  readonly #list: ScheduleFigures[] = []
  #choices: Choices | undefined

  /** Takes the schedules found for a new profile. The first contender is in use from now on. */
  chosen(step: number, choices: Choices): ScheduleFigures {
    this.#choices = choices
    return this.#add(step, choices.contenders[0])
  }

  /** The contender with this index came out best in a trial. */
  preferred(step: number, contender: number): ScheduleFigures {
    return this.#add(step, this.contenders[contender])
  }

  #add(step: number, { schedule, predicted }: Predicted = { schedule: '', predicted: Number.NaN }): ScheduleFigures {
    const figures: ScheduleFigures = {
      step,
      schedule,
      predictedMilliseconds: predicted,
      sequentialMilliseconds: this.#choices?.sequentialMilliseconds,
      measuredMilliseconds: undefined,
    }
    this.#list.push(figures)
    return figures
  }

  get current(): ScheduleFigures | undefined {
    return this.#list.at(-1)
  }

  get contenders(): readonly Predicted[] {
    return this.#choices?.contenders ?? []
  }

  /** For summary.json: the figures of the current schedule, then those of all. */
  get summary() {
    const { predictedMilliseconds, sequentialMilliseconds, measuredMilliseconds } = this.current ?? {}
    return {
      predictedMilliseconds,
      sequentialMilliseconds,
      measuredMilliseconds,
      plans: this.#list,
      candidates: this.#choices?.candidates,
    }
  }

  /** The profile that the last schedules were found for. */
  get measured(): Choices['measured'] | undefined {
    return this.#choices?.measured
  }
}

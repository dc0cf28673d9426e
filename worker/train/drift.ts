// Detects that a schedule no longer fits, e.g. because a link has slowed down or another process
// has come to the machine. Pure: from the same numbers, every rank decides the same.

import { median } from '../median.ts'

/** Number of steps that make the reference, and of steps in a row that must differ from it. */
const STEPS = 5
const TOLERANCE = 0.2
/** Least number of steps from one choice of a schedule to the next. */
const REST = 20

export class Drift {
  #reference: number[] = []
  #since = 0
  #away = 0

  /** Takes the steps that follow as the reference, because another schedule runs from now on. */
  restart(): void {
    this.#reference = []
    this.#since = 0
    this.#away = 0
  }

  /** Median of the reference steps; undefined until there are enough. */
  get expected(): number | undefined {
    if (this.#reference.length < STEPS) return undefined
    return median(this.#reference)
  }

  /**
   * Takes the time of a step, in any unit. True if all of the last steps differ from the reference
   * by more than 20 %.
   */
  observe(time: number): boolean {
    this.#since++
    const { expected } = this
    if (expected === undefined) {
      this.#reference.push(time)
      return false
    }
    this.#away = Math.abs(time / expected - 1) > TOLERANCE ? this.#away + 1 : 0
    return this.#away >= STEPS && this.#since >= REST
  }
}

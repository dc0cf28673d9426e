// When a schedule no longer fits: a link that slowed down, a neighbour that came or went. Pure; fed with the same numbers on every rank, it
// decides the same on every rank.

import { median } from '../median.ts'

/** Steps that make the reference, and steps in a row that must differ from it. */
const STEPS = 5
const TOLERANCE = 0.2
/** Steps from one plan to the next at least. */
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

  /** Median of the reference steps, once there are enough. */
  get expected(): number | undefined {
    if (this.#reference.length < STEPS) return undefined
    return median(this.#reference)
  }

  /** Takes the time of a step, any unit; true when the last steps have all differed by more than 20 %. */
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

// The losses of a run: the ones that a checkpoint keeps, and losses.jsonl in the output folder,
// with a line such as `{"step":12,"loss":2.31}` for each step. A resumed run drops the lines of the
// steps that it does again.

import { appendFileSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { errnoCode } from '../failure.ts'
import { writing } from './output.ts'

const LossPair = z.object({
  loss: z.number().optional(),
  evaluationLoss: z.number().optional(),
  /** Steps done when evaluationLoss was measured. */
  evaluationStep: z.int().optional(),
})

/** Losses at the very start of the job and now. A resumed run could not know the first ones. */
export const Losses = z.object({ first: LossPair, last: LossPair })
export type Losses = z.infer<typeof Losses>

export interface LossLine {
  /** Steps done. */
  step: number
  loss?: number
  auxLoss?: number
  gradientNorm?: number
  /** The one that the step used. */
  learningRate?: number
  evaluationLoss?: number
}

export class LossLog {
  readonly #path: string
  /**
   * The open file, and not its name: a newer gang gives the name to a file of its own, to which
   * this one must not add.
   */
  readonly #file: number

  /** Keeps the lines of an earlier run up to `step`; none if `step` is 0. */
  constructor(folder: string, step: number) {
    this.#path = join(folder, 'losses.jsonl')
    this.#file = writing(this.#path, () => {
      const temporary = `${this.#path}.tmp`
      writeFileSync(temporary, step === 0 ? '' : linesUpTo(readIfThere(this.#path), step))
      renameSync(temporary, this.#path)
      return openSync(this.#path, 'a')
    })
  }

  append(line: LossLine): void {
    writing(this.#path, () => appendFileSync(this.#file, `${JSON.stringify(line)}\n`))
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return ''
    throw error
  }
}

/** The lines of steps 0 .. step, without a line that a dying process did not finish. */
function linesUpTo(text: string, step: number): string {
  return text
    .split('\n')
    .filter(line => {
      const found = /^\{"step":(\d+),.*\}$/.exec(line)
      return found !== null && Number(found[1]) <= step
    })
    .map(line => `${line}\n`)
    .join('')
}

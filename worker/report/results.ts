// What a run leaves in the output folder beside checkpoints. losses.jsonl: one line per step, `{"step":12,"loss":2.31,…}`; a resumed run drops
// the lines of steps it does again. At the end: summary.json, plan-times.json, and of every rank trace-rank<rank>.json.

import { appendFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'

export interface LossLine {
  /** Steps done. */
  step: number
  loss?: number
  auxLoss?: number
  gradientNorm?: number
  evaluationLoss?: number
}

export class LossLog {
  readonly #path: string

  /** Continues after `step`: keeps the lines up to it; from the start, none. */
  constructor(folder: string, step: number) {
    this.#path = join(folder, 'losses.jsonl')
    guard(this.#path, () => {
      const temporary = `${this.#path}.tmp`
      writeFileSync(temporary, step === 0 ? '' : linesUpTo(readIfThere(this.#path), step))
      renameSync(temporary, this.#path)
    })
  }

  append(line: LossLine): void {
    guard(this.#path, () => appendFileSync(this.#path, `${JSON.stringify(line)}\n`))
  }
}

/** Whether a run to this step has left its summary. */
export function isSummarised(folder: string | undefined, step: number): boolean {
  try {
    const found: unknown = JSON.parse(readFileSync(join(folder ?? '', 'summary.json'), 'utf8'))
    return typeof found === 'object' && found !== null && 'steps' in found && found.steps === step
  } catch {
    return false
  }
}

/** `measured`: what the schedule was chosen from, for `scmoe plan --results`. */
export function writeResults(folder: string, summary: object, measured: object | undefined): void {
  write(folder, 'summary.json', `${JSON.stringify(summary, null, 2)}\n`)
  if (measured !== undefined) write(folder, 'plan-times.json', `${JSON.stringify(measured)}\n`)
}

export function writeTrace(folder: string, rank: number, trace: string): void {
  write(folder, `trace-rank${rank}.json`, trace)
}

function write(folder: string, name: string, text: string): void {
  const path = join(folder, name)
  guard(path, () => writeFileSync(path, text))
}

function guard(path: string, act: () => void): void {
  try {
    act()
  } catch (error) {
    throw new WorkerFailure(
      'checkpoint',
      `${path} cannot be written: ${errnoText(error)}. Check the output folder's free space and permissions.`,
    )
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

/** Whole lines of steps 0 .. step; a line that a dying process left unfinished is dropped. */
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

// Files that a finished run leaves in the output folder: summary.json, plan-times.json and, from
// every rank, trace-rank<rank>.json.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { writing } from './output.ts'

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
  writing(path, () => writeFileSync(path, text))
}

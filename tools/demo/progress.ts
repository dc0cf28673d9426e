// The demo's lines on the terminal, each with the seconds since the start.

import { styleText } from 'node:util'
import type { Progress } from '../cluster/programs/binaries.ts'

/** Without a terminal a line that only updates the one before it is printed this often. */
const SELDOM_MILLISECONDS = 30_000

const started = performance.now()
let printed = Number.NEGATIVE_INFINITY
let isReplaceable = false

export function say(line: string): void {
  isReplaceable = false
  console.log(timed(line))
}

function timed(line: string): string {
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6)
  return `${styleText('dim', `${seconds} s`)}  ${line}`
}

/** An update replaces the update before it on a terminal; elsewhere few of them are printed. */
export const onProgress: Progress = (line, isUpdate = false) => {
  if (!isUpdate) return say(line)
  const now = performance.now()
  const { isTTY } = process.stdout
  if (!isTTY && now - printed < SELDOM_MILLISECONDS && !line.endsWith('done')) return
  printed = now
  process.stdout.write(`${isTTY && isReplaceable ? '\u001B[1A\u001B[2K' : ''}${timed(line)}\n`)
  isReplaceable = true
}

/** Prints the name of a step, runs it, and prints how long it took. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const before = performance.now()
  say(styleText('bold', what))
  const result = await work()
  say(`${what}: ${((performance.now() - before) / 1000).toFixed(1)} s`)
  return result
}

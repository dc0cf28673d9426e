// Reads traces of ranks and joins them into one file.

import { closeSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { JobFileError } from './job-file.ts'
import { causeOf } from './sentence.ts'

const Trace = z.looseObject({
  otherData: z.object({ startMicroseconds: z.number() }),
  traceEvents: z.array(z.looseObject({ ts: z.number().optional() })),
})
export type Trace = z.infer<typeof Trace>

const fileOf = (rank: number) => `trace-rank${rank}.json`

/** Removes the traces that were written before that time, in milliseconds since 1970. */
export function removeTraces(output: string, before: number): void {
  for (const name of readdirSync(output)) {
    const path = join(output, name)
    if (/^trace-rank\d+\.json$/.test(name) && statSync(path).mtimeMs < before) rmSync(path)
  }
}

/** Joins the traces that a run left into one file. Throws JobFileError if one is missing. */
export function mergeTraces({ output, ranks, file }: { output: string; ranks: number; file: string }): void {
  const traces = Array.from({ length: ranks }, (_, rank) => readTrace(join(output, fileOf(rank))))
  writeFileSync(file, JSON.stringify(beside(traces)))
}

/** One trace of the steps of all ranks, aligned by the wall clock. */
export function beside(traces: readonly Trace[]): Trace & { displayTimeUnit: string } {
  const start = Math.min(...traces.map(({ otherData }) => otherData.startMicroseconds))
  const traceEvents = traces.flatMap(({ otherData, traceEvents: events }) => {
    const offset = otherData.startMicroseconds - start
    return events.map(event => (event.ts === undefined ? event : { ...event, ts: event.ts + offset }))
  })
  return { displayTimeUnit: 'ms', otherData: { startMicroseconds: start }, traceEvents }
}

/** Throws JobFileError if the text is not a trace; `what` names its source. */
export function parseTrace(text: string, what: string): Trace {
  try {
    return Trace.parse(JSON.parse(text))
  } catch {
    throw new JobFileError(`${what} is not a trace, but: ${text.slice(0, 200)}`)
  }
}

/** Throws JobFileError if the file cannot be written, before hours of training and not after. */
export function demandWritable(file: string, option = '--trace'): void {
  try {
    closeSync(openSync(file, 'a'))
  } catch (error) {
    throw new JobFileError(`${option}: ${file} cannot be written (${causeOf(error)}): give another file`)
  }
}

function readTrace(path: string): Trace {
  try {
    return Trace.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (error) {
    throw new JobFileError(`--trace: this run left no ${path} (${causeOf(error)}): only steps that end are traced`)
  }
}

// The traces of the ranks of a job, as one.

import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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

/** Those of an earlier run, which may have had more ranks. */
export function removeTraces(output: string): void {
  for (const name of readdirSync(output)) if (/^trace-rank\d+\.json$/.test(name)) rmSync(join(output, name))
}

/** Writes the traces that a run left as one file. Throws JobFileError where it left none. */
export function mergeTraces({ output, ranks, file }: { output: string; ranks: number; file: string }): void {
  const traces = Array.from({ length: ranks }, (_, rank) => readTrace(join(output, fileOf(rank))))
  writeFileSync(file, JSON.stringify(beside(traces)))
}

/** The ranks' steps beside each other, by the wall clock. */
export function beside(traces: readonly Trace[]): Trace & { displayTimeUnit: string } {
  const start = Math.min(...traces.map(({ otherData }) => otherData.startMicroseconds))
  const traceEvents = traces.flatMap(({ otherData, traceEvents: events }) => {
    const offset = otherData.startMicroseconds - start
    return events.map(event => (event.ts === undefined ? event : { ...event, ts: event.ts + offset }))
  })
  return { displayTimeUnit: 'ms', otherData: { startMicroseconds: start }, traceEvents }
}

/** Throws JobFileError where the text is no trace of ours. */
export function parseTrace(text: string, what: string): Trace {
  try {
    return Trace.parse(JSON.parse(text))
  } catch {
    throw new JobFileError(`${what} is not a trace, but: ${text.slice(0, 200)}`)
  }
}

/** Before hours of training rather than after them. Throws JobFileError. */
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

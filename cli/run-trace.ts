// The traces that the ranks of a run leave, as one file.

import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { JobFileError } from './job-file.ts'

const Trace = z.looseObject({
  otherData: z.object({ startMicroseconds: z.number() }),
  traceEvents: z.array(z.looseObject({ ts: z.number().optional() })),
})

const fileOf = (rank: number) => `trace-rank${rank}.json`

/** Those of an earlier run, which may have had more ranks. */
export function removeTraces(output: string): void {
  for (const name of readdirSync(output)) if (/^trace-rank\d+\.json$/.test(name)) rmSync(join(output, name))
}

/** Puts the ranks' steps beside each other by the wall clock. Throws JobFileError where the run left none. */
export function mergeTraces({ output, ranks, file }: { output: string; ranks: number; file: string }): void {
  const traces = Array.from({ length: ranks }, (_, rank) => readTrace(join(output, fileOf(rank))))
  const start = Math.min(...traces.map(({ otherData }) => otherData.startMicroseconds))
  const traceEvents = traces.flatMap(({ otherData, traceEvents: events }) => {
    const offset = otherData.startMicroseconds - start
    return events.map(event => (event.ts === undefined ? event : { ...event, ts: event.ts + offset }))
  })
  const text = JSON.stringify({ displayTimeUnit: 'ms', otherData: { startMicroseconds: start }, traceEvents })
  writeFileSync(file, text)
}

/** Before hours of training rather than after them. Throws JobFileError. */
export function demandWritable(file: string): void {
  try {
    closeSync(openSync(file, 'a'))
  } catch (error) {
    throw new JobFileError(`--trace: ${file} cannot be written (${String(error)}): give another file`)
  }
}

function readTrace(path: string): z.infer<typeof Trace> {
  try {
    return Trace.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (error) {
    throw new JobFileError(`--trace: this run left no ${path} (${String(error)}): only steps that end are traced`)
  }
}

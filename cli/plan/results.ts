// Reads the times that a run has measured: plan-times.json and summary.json of its output folder.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import type { Emitted } from '../../worker/program/program.ts'
import type { Profile } from '../../worker/schedule/schedule.ts'
import { JobFileError } from '../job-file.ts'

/** `labels` are in emitted order; `times` are microseconds by rank, then by op. */
const PlanTimes = z.object({
  labels: z.array(z.string()),
  times: z.array(z.array(z.number())).min(1),
  contention: z.number(),
  latency: z.number(),
})
/** The fields of summary.json that are shown. */
const Summary = z.looseObject({ schedule: z.string().optional(), measuredMilliseconds: z.number().optional() })

export interface Measured {
  file: string
  labels: readonly string[]
  profile: Profile
  /** The schedule that ran, and the median time of its steps. */
  schedule: string | undefined
  milliseconds: number | undefined
}

/** Throws JobFileError if the folder holds no finished run. */
export function readMeasured(folder: string): Measured {
  const file = join(folder, 'plan-times.json')
  const { labels, times, contention, latency } = read(file, PlanTimes)
  const { schedule, measuredMilliseconds: milliseconds } = read(join(folder, 'summary.json'), Summary)
  const profile = { times: times.map(rank => Float64Array.from(rank)), contention, latency }
  return { file, labels, profile, schedule, milliseconds }
}

function read<T>(file: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : error instanceof Error ? error.message : error
    throw new JobFileError(
      `${file} cannot be used (${String(why)}): give --results the output folder of a \`scmoe run\` of this job that measured its steps`,
    )
  }
}

/** Throws JobFileError unless the times are those of this program's ops on this many ranks. */
export function demandSame({ file, labels, profile }: Measured, emitted: Emitted, worldSize: number): void {
  const another = 'give --results the output folder of a `scmoe run` of this very job'
  const ranks = profile.times.length
  if (ranks !== worldSize && ranks !== 1)
    throw new JobFileError(`${file} holds times of ${ranks} ranks, but the job has ${worldSize}: ${another}`)
  const length = Math.max(labels.length, emitted.ops.length)
  for (let op = 0; op < length; op++) {
    const [found, wanted] = [labels[op], emitted.ops[op]?.label]
    if (found !== wanted)
      throw new JobFileError(
        `${file} holds times of another model: its op ${op} is ${found ?? 'missing'}, but that of the job is ${wanted ?? 'missing'}: ${another}`,
      )
  }
}

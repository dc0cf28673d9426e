// Runs the jobs of the quality benchmark as processes, a few at a time. A job whose result exists
// is not run again.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Job } from './jobs.ts'
import type { Result } from './train.ts'

export interface PoolOptions {
  parallel: number
  /** Path of a job's result. */
  path: (job: Job) => string
  log: (text: string) => void
}

/** Results in the order of the jobs. Throws if a run fails, when the runs beside it have ended. */
export async function runAll(jobs: readonly Job[], options: PoolOptions): Promise<Result[]> {
  const left = jobs.filter(job => !existsSync(options.path(job)))
  if (left.length < jobs.length) options.log(`${jobs.length - left.length} of ${jobs.length} runs are done already`)
  let failed = false
  const workOff = async () => {
    for (let job = left.shift(); job && !failed; job = left.shift()) {
      try {
        await trainOne(job, options)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const ends = await Promise.allSettled(Array.from({ length: options.parallel }, workOff))
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  return jobs.map(job => read(options.path(job)))
}

function read(path: string): Result {
  return JSON.parse(readFileSync(path, 'utf8'))
}

/** Runs a job as a process, which ends with this one, because the channel between them closes. */
async function trainOne(job: Job, { path, log }: PoolOptions): Promise<void> {
  const words = [join(import.meta.dirname, 'train.ts'), JSON.stringify(job), path(job)]
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const end = await new Promise<number | string | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? signal))
  })
  if (end !== 0) throw new Error(`the run of ${job.kind} with seed ${job.seed} ended with ${end}`)
  const { evaluationLoss, seconds } = read(path(job))
  log(`${job.kind}, seed ${job.seed}: held-out loss ${evaluationLoss.toFixed(4)} after ${seconds.toFixed(0)} s`)
}

// Times of compute ops: measured on this machine by processes that each play one rank
// (worker/measure.ts), or read from the results of a run.

import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { z } from 'zod'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { median } from '../../worker/median.ts'
import { JobFileError } from '../job-file.ts'
import { readMeasured } from '../plan/results.ts'
import type { Computed } from './predict.ts'

/** Rounds that warm up caches and branch predictors; they do not count. */
const WARM_UP = 2
const COUNTED = 7
const MEASURE = join(import.meta.dirname, '../../worker/measure.ts')

const Round = z.array(z.object({ name: z.string(), labels: z.array(z.string()), times: z.array(z.number()) }))
type Round = z.infer<typeof Round>
const Message = z.union([Round, z.object({ error: z.string() })])

export interface Subject {
  spec: ScMoEJobSpec
  worldSize: number
  computeThreads: number
  /** The number of ranks that share this machine, each as a process. */
  processes: number
}

/** Medians over the counted rounds of each process, then means over processes. */
export async function measureCompute(subject: Subject): Promise<Computed> {
  const children: ChildProcess[] = []
  try {
    const running = Array.from({ length: subject.processes }, (_, rank) => {
      const child = spawn(process.execPath, [MEASURE], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
      children.push(child)
      const { processes: _processes, ...order } = subject
      child.send({ ...order, rank })
      return new Rounds(child)
    })
    // Processes keep running after their last counted round, so that slower ones are measured
    // under the same load.
    const all = await Promise.all(running.map(rounds => rounds.enough))
    return averaged(all.map(rounds => medians(rounds.slice(WARM_UP))))
  } finally {
    for (const child of children) child.kill('SIGKILL')
  }
}

class Rounds {
  readonly enough: Promise<Round[]>

  constructor(child: ChildProcess) {
    const rounds: Round[] = []
    this.enough = new Promise((resolve, reject) => {
      child.on('message', received => {
        const message = Message.parse(received)
        if ('error' in message) reject(new JobFileError(`a rank cannot be measured: ${message.error}`))
        else if (rounds.push(message) === WARM_UP + COUNTED) resolve(rounds)
      })
      child.once('error', reject)
      child.once('exit', (code, signal) => reject(new Error(`${MEASURE} ended early: ${code ?? signal}`)))
    })
  }
}

function medians(rounds: readonly Round[]): Computed {
  const samples = new Map<string, Map<string, number[]>>()
  for (const { name, labels, times } of rounds.flat()) {
    const program = samples.get(name) ?? new Map<string, number[]>()
    samples.set(name, program)
    for (const [op, label] of labels.entries()) {
      const list = program.get(label) ?? []
      program.set(label, list)
      list.push(times[op] ?? 0)
    }
  }
  return mapValues(samples, program => mapValues(program, median))
}

function averaged(ranks: readonly Computed[]): Computed {
  const [first = new Map<string, Map<string, number>>()] = ranks
  const at = (name: string, label: string) => ranks.reduce((sum, rank) => sum + (rank.get(name)?.get(label) ?? 0), 0)
  return mapValues(first, (program, name) => mapValues(program, (_, label) => at(name, label) / ranks.length))
}

const mapValues = <V, T>(map: ReadonlyMap<string, V>, change: (value: V, key: string) => T): Map<string, T> =>
  new Map([...map].map(([key, value]) => [key, change(value, key)]))

/**
 * The times of program `train` in the output folder of a run, as means over its ranks. The
 * micro-batches before the last are taken to have the same times.
 */
export function computedOfRun(folder: string): Computed {
  const { labels, profile } = readMeasured(folder)
  const mean = (op: number) =>
    profile.times.reduce((sum, rank) => sum + (rank[op] ?? 0), 0) / Math.max(1, profile.times.length)
  const times = new Map(labels.map((label, op) => [label, mean(op)]))
  return new Map(['train', 'accumulate', 'accumulate.first'].map(name => [name, times]))
}

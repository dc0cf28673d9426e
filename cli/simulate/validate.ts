// scmoe simulate --validate: compares the predictor with reality. Worlds small enough for this
// machine are run. The prediction uses the times of their collectives, and compute measured with as
// many processes on the machine but without a network.

import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { worldSizeOf } from '../../crds/ranks.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { emitTrain } from '../../worker/emit/emit.ts'
import { modelConfig } from '../../worker/model/config.ts'
import { collectiveOf } from '../../worker/program/effects.ts'
import type { Emitted } from '../../worker/program/program.ts'
import { choices, describe, type Profile } from '../../worker/schedule/schedule.ts'
import { JobFileError } from '../job-file.ts'
import { type Measured, readMeasured } from '../plan/results.ts'
import { runGang } from '../run/gang.ts'
import { Interrupted, Stops } from '../run/stops.ts'
import { measureCompute } from './measure.ts'
import { type Network, step, type World } from './predict.ts'

export interface Validation {
  ranks: number
  /** The schedule of the run. */
  schedule: string
  /** One optimizer step, without the evaluations and reports between steps. */
  predictedMilliseconds: number
  measuredMilliseconds: number
  /** 100 * (predicted / measured - 1). */
  errorPercent: number
  megabytesPerSecond: number
  latencyMicroseconds: number
}

/** Enough steps for the worker to choose its schedule and to measure it. */
const STEPS = 30

/** Throws JobFileError if the run fails. */
export async function validateWorld(name: string, spec: ScMoEJobSpec): Promise<Validation> {
  const ranks = worldSizeOf(spec)
  const model = modelConfig(spec, ranks)
  const emitted = emitTrain(model, 0)
  const measured = await runWorld(name, spec)
  const computeThreads = Math.max(1, Math.floor(availableParallelism() / ranks))
  const computed = await measureCompute({ spec, worldSize: ranks, computeThreads, processes: ranks })
  const { contention } = measured.profile
  const network = networkOf(emitted, measured.profile)
  const predicted = predictedAs(measured.schedule, { model, computed, network, contention }) / 1000
  const milliseconds = measured.milliseconds ?? Number.NaN
  return {
    ranks,
    schedule: measured.schedule ?? 'unknown',
    predictedMilliseconds: predicted,
    measuredMilliseconds: milliseconds,
    errorPercent: 100 * (predicted / milliseconds - 1),
    megabytesPerSecond: network.bytesPerSecond / 1e6,
    latencyMicroseconds: network.latencyMicroseconds,
  }
}

/** The predicted microseconds of a step with the schedule that ran. */
function predictedAs(ran: string | undefined, world: World): number {
  const emitted = emitTrain(world.model, 0)
  const choice = choices(emitted, { strategy: 'Auto' }).find(each => describe(each) === ran)
  if (!choice) throw new JobFileError(`the run reports the schedule ${ran ?? 'none'}, which this program does not have`)
  return step(world, choice).total
}

/**
 * Latency is the time of the counts; the remaining time of the all-to-alls is their bytes over the
 * bandwidth. Further peers add nothing here.
 */
export function networkOf(emitted: Emitted, { times }: Pick<Profile, 'times'>): Network {
  const mean = (op: number) => times.reduce((sum, rank) => sum + (rank[op] ?? 0), 0) / times.length
  const ops = emitted.ops.map((op, index) => ({ collective: collectiveOf(op), cost: op.cost, time: mean(index) }))
  const counts = ops.filter(({ collective }) => collective === 'gather').map(({ time }) => time)
  const latency = counts.toSorted((a, b) => a - b)[counts.length >> 1] ?? 0
  const exchanges = ops.filter(({ collective, cost }) => collective === 'exchange' && cost > 0)
  const bytes = exchanges.reduce((sum, { cost }) => sum + cost, 0)
  const travel = exchanges.reduce((sum, { time }) => sum + Math.max(time - latency, 0), 0)
  const bytesPerSecond = travel > 0 ? (bytes / travel) * 1e6 : Number.POSITIVE_INFINITY
  return { bytesPerSecond, latencyMicroseconds: latency, peerMicroseconds: 0 }
}

async function runWorld(name: string, written: ScMoEJobSpec): Promise<Measured> {
  const scratch = mkdtempSync(join(tmpdir(), 'scmoe-validate-'))
  const output = join(scratch, 'output')
  const { training } = written
  const evaluation = { ...training.evaluation, everySteps: STEPS, batches: 1 }
  const spec = { ...written, training: { ...training, steps: STEPS, evaluation }, suspend: false }
  const stops = new Stops()
  try {
    const [first] = await runGang({ name, spec, output, scratch }, { stops })
    if (stops.request !== undefined) throw new Interrupted(stops.request.signal)
    if (!first || first.code !== 0)
      throw new JobFileError(`the run failed: rank ${first?.rank}: ${first?.failure?.message ?? `code ${first?.code}`}`)
    return readMeasured(output)
  } finally {
    stops.close()
    rmSync(scratch, { recursive: true, force: true })
  }
}

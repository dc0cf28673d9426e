// The programs of one rank, their schedules and the predicted times of these.

import { emitEvaluate, emitMicroBatch, emitTrain } from '../../worker/emit/emit.ts'
import type { ModelConfig } from '../../worker/model/config.ts'
import type { Emitted, Program } from '../../worker/program/program.ts'
import {
  assemble,
  type Choice,
  choose,
  describe,
  estimate,
  type Machine,
  makespan,
  type Profile,
  schedule,
  type Times,
  timeline,
  type Wish,
} from '../../worker/schedule/schedule.ts'
import type { Assumed } from './devices.ts'
import { demandSame, type Measured } from './results.ts'

export interface Planned {
  /** Every schedule that was compared, with the microseconds of a whole step. */
  candidates: readonly { choice: Choice; predicted: number }[]
  choice: Choice
  /** train, then the programs of the micro-batches before the last, then evaluate. */
  programs: readonly [Program, ...Program[]]
  timeline: string
}

interface Wanted extends Assumed {
  rank: number
  wish: Wish
  measured: Measured | undefined
}

/** Throws JobFileError if the measured times are not of this job. */
export function planPrograms(model: ModelConfig, wanted: Wanted): Planned {
  const { rank, wish, measured } = wanted
  const train = emitTrain(model, rank)
  if (measured) demandSame(measured, train, model.worldSize)
  const machine = machineOf(wanted)
  const profile = measured?.profile ?? estimate(train, machine)
  const accumulating = microBatches(model, rank)
  // Like a worker, choose by the micro-batches that most of a step consists of.
  const main = accumulating.at(-1)?.emitted ?? train
  const { candidates, choice } = choose(main, profileOf(main, { train, profile, machine }), wish)
  const scheduled = schedule(train, choice, profile)
  const predicted = makespan(scheduled, train, profile, rank)
  const rest = main === train ? 0 : predicted.total
  const others = [...accumulating.map(each => each.emitted), emitEvaluate(model, rank)]
  return {
    candidates: candidates.map(each => ({
      choice: each.choice,
      predicted: each.predicted * Math.max(1, model.microBatches - 1) + rest,
    })),
    choice,
    programs: [assemble(scheduled, model, rank), ...others.map(each => assemble(schedule(each, choice), model, rank))],
    timeline: timeline(scheduled, {
      title: `${model.kind}   ${describe(choice)}`,
      rank,
      worldSize: model.worldSize,
      predicted,
    }),
  }
}

const machineOf = ({ gigaflops, megabytesPerSecond, latencyMicroseconds }: Assumed): Machine => ({
  flopsPerSecond: gigaflops * 1e9,
  bytesPerSecond: megabytesPerSecond * 1e6,
  latencySeconds: latencyMicroseconds / 1e6,
})

/** The programs of a step before its last micro-batch, and how often each runs. */
export function microBatches(model: ModelConfig, rank: number): { emitted: Emitted; runs: number }[] {
  const runs = { first: Math.min(model.microBatches - 1, 1), further: Math.max(model.microBatches - 2, 0) }
  return [
    { emitted: emitMicroBatch(model, rank, true), runs: runs.first },
    { emitted: emitMicroBatch(model, rank, false), runs: runs.further },
  ].filter(each => each.runs > 0)
}

/**
 * The times of a program, looked up by label in those of the training program. The time of an op
 * that the training program does not have is estimated.
 */
function profileOf(emitted: Emitted, known: { train: Emitted; profile: Profile; machine: Machine }): Profile {
  const at = new Map(known.train.ops.map(({ label }, index) => [label, index]))
  const [estimated] = estimate(emitted, known.machine).times
  const timesOf = (times: Times) =>
    Float64Array.from(emitted.ops, ({ label }, op) => times[at.get(label) ?? -1] ?? estimated?.[op] ?? 0)
  return { ...known.profile, times: known.profile.times.map(timesOf) }
}

// The programs of one rank, their schedules and what these are predicted to take.

import type { ModelConfig } from '../worker/model.ts'
import { emitEvaluate, emitMicroBatch, emitTrain } from '../worker/program/emit.ts'
import type { Emitted, Program } from '../worker/program/program.ts'
import {
  assemble,
  type Candidate,
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
} from '../worker/schedule/schedule.ts'
import { demandSame, type Measured } from './plan-results.ts'

/** Of one worker; a running job measures instead. */
export interface Assumed {
  gigaflops: number
  megabytesPerSecond: number
  latencyMicroseconds: number
}

export interface Planned {
  candidates: readonly Candidate[]
  choice: Choice
  /** train, those of the micro-batches before it, evaluate. */
  programs: readonly [Program, ...Program[]]
  /** All micro-batches of a step, microseconds. */
  step: number
  timeline: string
}

interface Wanted extends Assumed {
  rank: number
  wish: Wish
  measured: Measured | undefined
}

/** Throws JobFileError where what was measured is not this job, and ScheduleError where the wish cannot be had. */
export function planPrograms(model: ModelConfig, wanted: Wanted): Planned {
  const { rank, wish, measured } = wanted
  const emitted = emitTrain(model, rank)
  if (measured) demandSame(measured, emitted, model.worldSize)
  const profile = measured?.profile ?? estimate(emitted, machineOf(wanted))
  const { candidates, choice, scheduled, predicted } = choose(emitted, profile, wish)
  const accumulating = microBatches(model, rank)
  const earlier = accumulating.reduce((sum, each) => {
    const own = profileOf(each.emitted, { emitted, profile, machine: machineOf(wanted) })
    return sum + each.runs * makespan(schedule(each.emitted, choice, own), each.emitted, own).total
  }, 0)
  const others = [...accumulating.map(each => each.emitted), emitEvaluate(model, rank)]
  return {
    candidates,
    choice,
    programs: [assemble(scheduled, model, rank), ...others.map(each => assemble(schedule(each, choice), model, rank))],
    step: earlier + predicted,
    timeline: timeline(scheduled, {
      title: `${model.kind}   ${describe(choice)}`,
      rank,
      worldSize: model.worldSize,
      predicted: makespan(scheduled, emitted, profile, rank),
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

/** Times of a program whose ops the profiled one has too, by label; an op of its own alone is estimated. */
function profileOf(emitted: Emitted, known: { emitted: Emitted; profile: Profile; machine: Machine }): Profile {
  const at = new Map(known.emitted.ops.map(({ label }, index) => [label, index]))
  const [estimated] = estimate(emitted, known.machine).times
  const timesOf = (times: Times) =>
    Float64Array.from(emitted.ops, ({ label }, op) => times[at.get(label) ?? -1] ?? estimated?.[op] ?? 0)
  return { ...known.profile, times: known.profile.times.map(timesOf) }
}

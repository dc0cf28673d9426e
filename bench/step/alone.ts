// One whole optimizer step of one rank with one thread, compared with the fastest matrix product,
// and its memory compared with the memory plan.

import { planMemory } from '../../worker/schedule/schedule.ts'
import { atLeast, type Figure, figureOf } from '../turns/figures.ts'
import type { Watch } from '../turns/watch.ts'
import { Model } from '../world/model.ts'
import { measurePeak, openPeak, workOf } from '../world/peak.ts'
import { World } from '../world/world.ts'
import { configOf, type Shape } from './shape.ts'

/** The share of the matrix product's speed that a whole step is to reach. */
const AIM = atLeast(65)

/** One step and the fastest matrix product beside it. */
interface Sample {
  milliseconds: number
  /** Operations per second. */
  peak: number
}

export interface Alone {
  milliseconds: number
  gigaflopsPerSecond: number
  peakGigaflopsPerSecond: number
  percentOfGemmPeak: number
  /** Near the logarithm of the vocabulary, because the model is not trained. */
  loss: number
  /** Bytes that a step adds to the resident memory of the process, and the bytes of the plan. */
  activationBytesPerToken: number
  plannedActivationBytesPerToken: number
  /** Kinds of ops with their total time, the longest first. */
  parts: { op: string; milliseconds: number; gigaflopsPerSecond: number | null }[]
}

/**
 * Steps and products alternate, and the fastest of `runs` counts for both, because other load on
 * the machine only makes them slower.
 */
export async function stepAlone(
  shape: Shape,
  runs: number,
  watch: Watch,
): Promise<{ alone: Alone; figures: Figure[] }> {
  using world = await World.start(1)
  await openPeak(world)
  await measurePeak(world)
  const config = configOf(shape, 'ScMoE', 1)
  const { model, sequential } = await Model.open('model', config, world)
  const scheduled = sequential.scheduled.get('train')
  if (!scheduled) throw new Error('train is not loaded')
  const before = await residentBytes(world)
  await model.run(sequential, ['train'])
  const after = await residentBytes(world)

  const emitted = model.emitted('train')
  const fastest = new Float64Array(scheduled.ops.length).fill(Number.POSITIVE_INFINITY)
  const samples: Sample[] = []
  for (let run = 0; run < runs; run++) {
    const { rate, ran } = await watch.turn(async () => ({
      rate: await measurePeak(world),
      ran: await model.run(sequential, ['train']),
    }))
    samples.push({ peak: rate, milliseconds: ran.milliseconds })
    const spans = ran.results[0]?.runs[0]
    for (const op of scheduled.ops.keys())
      fastest[op] = Math.min(fastest[op] ?? 0, (spans?.end[op] ?? 0) - (spans?.start[op] ?? 0))
  }
  const tokens = config.batch * config.sequence
  const work = workOf([emitted])
  const [loss = Number.NaN] = await model.scalars('loss')
  const { milliseconds, peak } = best(samples)
  const alone = {
    milliseconds,
    gigaflopsPerSecond: work / milliseconds / 1e6,
    peakGigaflopsPerSecond: peak / 1e9,
    percentOfGemmPeak: percentOfPeak(work, samples),
    loss,
    activationBytesPerToken: (after - before) / tokens,
    plannedActivationBytesPerToken: planMemory(scheduled).transientBytes / tokens,
    parts: partsOf(scheduled.ops, fastest),
  }
  const share = { name: 'whole step over its matrix product, one thread', unit: '%', aim: AIM, samples }
  return { alone, figures: [figureOf({ ...share, statistic: drawn => percentOfPeak(work, drawn) })] }
}

const best = (samples: readonly Sample[]): Sample => ({
  milliseconds: Math.min(...samples.map(({ milliseconds }) => milliseconds)),
  peak: Math.max(...samples.map(({ peak }) => peak)),
})

function percentOfPeak(work: number, samples: readonly Sample[]): number {
  const { milliseconds, peak } = best(samples)
  return (100 * work) / (milliseconds / 1000) / peak
}

async function residentBytes({ ranks: [rank] }: World): Promise<number> {
  return (await rank?.call('residentBytes')) ?? Number.NaN
}

function partsOf(ops: readonly { op: string; queue: string; cost: number }[], microseconds: Float64Array) {
  const byOp = new Map<string, { time: number; work: number }>()
  for (const [index, { op, queue, cost }] of ops.entries()) {
    if (queue !== 'compute') continue
    const sum = byOp.get(op) ?? { time: 0, work: 0 }
    sum.time += microseconds[index] ?? 0
    sum.work += /linear|attention/.test(op) ? cost : 0
    byOp.set(op, sum)
  }
  return [...byOp]
    .map(([op, { time, work }]) => ({
      op,
      milliseconds: time / 1e3,
      gigaflopsPerSecond: work > 0 ? work / time / 1e3 : null,
    }))
    .toSorted((a, b) => b.milliseconds - a.milliseconds)
}

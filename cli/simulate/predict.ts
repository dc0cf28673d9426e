// Predicts a step on ranks that do not exist, from measured times of compute, formulas for
// communication, and the scheduler. Pure.

import { emitTrain } from '../../worker/emit/emit.ts'
import type { ModelConfig } from '../../worker/model/config.ts'
import { groupSize } from '../../worker/program/cost.ts'
import { collectiveOf } from '../../worker/program/effects.ts'
import type { Emitted, Op } from '../../worker/program/program.ts'
import {
  type Choice,
  choose,
  describe,
  hiddenPercentOf,
  makespan,
  overlap,
  type Profile,
  schedule,
  type Wish,
} from '../../worker/schedule/schedule.ts'
import { JobFileError } from '../job-file.ts'
import { microBatches } from '../plan/programs.ts'

/** The link of one rank, which carries both directions at once. */
export interface Network {
  bytesPerSecond: number
  /** The time of the smallest message. */
  latencyMicroseconds: number
  /** The processor time that one more peer adds to a collective by its calls to the kernel. */
  peerMicroseconds: number
}

/** Microseconds of ops by program, then by label; an all-to-all has the copy of its own rows. */
export type Computed = ReadonlyMap<string, ReadonlyMap<string, number>>

export interface World {
  model: ModelConfig
  computed: Computed
  network: Network
  /** The share of a processor that communication takes from compute while it runs. */
  contention: number
}

export interface Prediction {
  ranks: number
  expertParallelSize: number
  schedule: string
  stepMilliseconds: number
  /** The step if compute waits for every all-to-all. */
  sequentialMilliseconds: number
  /** The tokens of all ranks together. */
  tokensPerSecond: number
  /** The time of the all-to-alls and counts of a step, and the share of it that is hidden. */
  communicationMilliseconds: number
  hiddenPercent: number
}

/**
 * Microseconds of a collective once all ranks have come to it, in a group of G ranks that reach
 * each other directly:
 *   all-to-all   latency + (G-1) peer + bytes (1 - 1/G) / bandwidth
 *   all-reduce   2 (latency + (G-1) peer) + 2 bytes (1 - 1/G) / bandwidth
 *   counts       latency + (G-1) peer + bytes (G-1) / bandwidth
 * For the all-to-all, `bytes` are the rows of this rank before dispatch, spread evenly over the
 * group; for counts, the counts of one rank. The all-reduce is a reduce-scatter and an all-gather.
 * `Op.cost` has the bytes that travel. Undefined in a group of one, in which nothing travels.
 */
export function collectiveTime(op: Op, { model, network }: Pick<World, 'model' | 'network'>): number | undefined {
  const group = collectiveOf(op) === 'exchange' ? 'ep' : String(op.attrs['group'] ?? 'world')
  const peers = groupSize(group, model) - 1
  if (peers === 0) return undefined
  const rounds = collectiveOf(op) === 'sum' ? 2 : 1
  const start = network.latencyMicroseconds + peers * network.peerMicroseconds
  return rounds * start + (op.cost / network.bytesPerSecond) * 1e6
}

/** Throws JobFileError if an op of the program has not been measured. */
export function profileOf(emitted: Emitted, world: World): Profile {
  const { model, network, contention, computed } = world
  const measured = computed.get(emitted.name)
  const times = Float64Array.from(emitted.ops, op => {
    const known = measured?.get(op.label)
    // With one rank, an all-to-all is a copy, and its time was measured as one.
    if (op.queue === 'comm') return collectiveTime(op, world) ?? (collectiveOf(op) === 'exchange' ? (known ?? 0) : 0)
    if (known === undefined)
      throw new JobFileError(
        `${op.label} of program ${emitted.name} has not been measured: the times are of another job`,
      )
    return known
  })
  const latency = network.latencyMicroseconds + (model.expertParallelSize - 1) * network.peerMicroseconds
  return { times: [times], contention, latency: model.expertParallelSize > 1 ? latency : 0 }
}

/** The best schedule that the wish allows, chosen like a worker does, and its optimizer step. */
export function predict(world: World, wish: Wish): Prediction {
  const { model } = world
  // Most of a step is micro-batches that do not sum gradients.
  const main = microBatches(model, 0).at(-1)?.emitted ?? emitTrain(model, 0)
  const { choice } = choose(main, profileOf(main, world), wish)
  const { total, communication, waited } = step(world, choice)
  return {
    ranks: model.worldSize,
    expertParallelSize: model.expertParallelSize,
    schedule: describe(choice),
    stepMilliseconds: total / 1000,
    sequentialMilliseconds: step(world, { strategy: 'Sequential' }).total / 1000,
    tokensPerSecond: (model.worldSize * model.microBatches * model.batch * model.sequence * 1e6) / total,
    communicationMilliseconds: communication / 1000,
    hiddenPercent: hiddenPercentOf({ waited, communication }),
  }
}

/**
 * Microseconds of an optimizer step: `total`; `communication`, the time of its all-to-alls and
 * counts; and `waited`, the time in which compute stands still for them.
 */
export function step(world: World, choice: Choice): { total: number; communication: number; waited: number } {
  const sums = { total: 0, communication: 0, waited: 0 }
  for (const { emitted, runs } of programsOf(world.model)) {
    const profile = profileOf(emitted, world)
    const scheduled = schedule(emitted, choice, profile)
    const spans = makespan(scheduled, emitted, profile)
    const { communication, waited } = overlap(scheduled, spans)
    sums.total += runs * spans.total
    sums.communication += runs * communication
    sums.waited += runs * waited
  }
  return sums
}

/** The programs of a step and how often each runs; `train` is the last. */
const programsOf = (model: ModelConfig) => [...microBatches(model, 0), { emitted: emitTrain(model, 0), runs: 1 }]

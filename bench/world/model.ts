// A model on all ranks of a world: its programs under any schedule, and the same compute without
// transfers.

import { alone, countBuffers, ONES } from '../../worker/emit/alone.ts'
import { emitEvaluate, emitMicroBatch, emitTrain } from '../../worker/emit/emit.ts'
import type { ModelConfig } from '../../worker/model/config.ts'
import type { Buffer, Emitted, Program, Scheduled } from '../../worker/program/program.ts'
import { assemble, type Choice, type Profile, type Spans, schedule } from '../../worker/schedule/schedule.ts'
import type { Result } from './rank.ts'
import type { World } from './world.ts'

/** The names of the programs of one optimizer step, in order. */
export const stepOf = ({ microBatches }: ModelConfig): string[] =>
  Array.from({ length: microBatches }, (_, micro) => {
    if (micro === microBatches - 1) return 'train'
    return micro === 0 ? 'accumulate.first' : 'accumulate'
  })

function emit(config: ModelConfig, rank: number): Emitted[] {
  const micro = config.microBatches > 1 ? [true, false].map(first => emitMicroBatch(config, rank, first)) : []
  return [emitTrain(config, rank), ...micro, emitEvaluate(config, rank)].map(withCounts)
}

/**
 * Moves the gathered counts to the end of the persistent buffers, beside the buffers that `alone`
 * adds. So they can be read, all programs agree on their place, and a program without collectives
 * works on the rows of the run before it.
 */
export function withCounts(emitted: Emitted): Emitted {
  const counts = new Set(countBuffers(emitted))
  const isKept = ({ name, arena }: Buffer) => arena === 'persistent' && !counts.has(name)
  const buffers = emitted.buffers.filter(isKept)
  const gathered = emitted.buffers.filter(({ name }) => counts.has(name))
  const rest = emitted.buffers.filter(({ name, arena }) => arena === 'transient' && !counts.has(name))
  const { buffers: added } = alone(emitted)
  const ones = added.filter(({ name }) => name === ONES)
  const last = [...gathered, ...ones].map((buffer): Buffer => ({ ...buffer, arena: 'persistent' }))
  return { ...emitted, buffers: [...buffers, ...last, ...rest] }
}

/** The compute ops without any collective; buffers as `withCounts` leaves them. */
export const withoutTransfers = (emitted: Emitted): Scheduled => ({ ...alone(emitted), buffers: emitted.buffers })

/** The indices of the copies that replace all-to-alls. */
export const copiesOf = ({ ops }: Scheduled): number[] =>
  [...ops.keys()].filter(index => ops[index]?.inputs.includes(ONES))

/** Programs of rank 0 under a schedule, by name, as loaded under `prefix`. */
export interface Loaded {
  prefix: string
  scheduled: ReadonlyMap<string, Scheduled>
}

export interface Ran {
  /** The time of the slowest rank. */
  milliseconds: number
  /** The results by rank. */
  results: Result[]
}

export class Model {
  readonly name: string
  readonly config: ModelConfig
  /** The programs by rank. */
  readonly #emitted: Emitted[][]
  readonly #world: World

  private constructor(name: string, config: ModelConfig, world: World) {
    this.name = name
    this.config = config
    this.#world = world
    this.#emitted = world.ranks.map((_, rank) => emit(config, rank))
  }

  /**
   * Opens a model in engines of its own, with initial parameters, under the sequential schedule.
   */
  static async open(name: string, config: ModelConfig, world: World): Promise<{ model: Model; sequential: Loaded }> {
    await world.open(name, config.expertParallelSize)
    const model = new Model(name, config, world)
    const sequential = await model.load('sequential', { strategy: 'Sequential' })
    await world.each((rank, index) => rank.call('reset', name, config, index))
    return { model, sequential }
  }

  /** The program of rank 0, whose ops are those of every rank. */
  emitted(program: string): Emitted {
    const found = this.#emitted[0]?.find(({ name }) => name === program)
    if (!found) throw new Error(`${this.name} has no program ${program}`)
    return found
  }

  /** Loads all programs under a schedule; `profile` has times of the ops of program `measured`. */
  load(prefix: string, choice: Choice, profile?: { measured: string; profile: Profile }): Promise<Loaded> {
    return this.#load(prefix, emitted => {
      const own = profile && this.profileOf(emitted, profile)
      return schedule(emitted, choice, own)
    })
  }

  /** Loads all programs without transfers; they work on the rows of the last run with transfers. */
  loadFree(): Promise<Loaded> {
    return this.#load('free', withoutTransfers)
  }

  async #load(prefix: string, place: (emitted: Emitted) => Scheduled): Promise<Loaded> {
    await this.#world.each((rank, index) => {
      const programs = (this.#emitted[index] ?? []).map((emitted): Program => {
        const program = assemble(place(emitted), this.config, index)
        return { ...program, name: `${prefix}: ${program.name}` }
      })
      return rank.call('load', this.name, programs)
    })
    return { prefix, scheduled: new Map((this.#emitted[0] ?? []).map(emitted => [emitted.name, place(emitted)])) }
  }

  async run({ prefix }: Loaded, programs: readonly string[]): Promise<Ran> {
    const names = programs.map(program => `${prefix}: ${program}`)
    const results = await this.#world.each(rank => rank.call('run', this.name, names))
    return { milliseconds: Math.max(...results.map(result => result.milliseconds)), results }
  }

  /** The first value of a buffer on every rank. */
  async scalars(buffer: string): Promise<number[]> {
    return (await this.#world.each(rank => rank.call('read', this.name, buffer))).map(([value = Number.NaN]) => value)
  }

  /** Times of one program, transferred to another by label; ops that only it has take no time. */
  profileOf(emitted: Emitted, { measured, profile }: { measured: string; profile: Profile }): Profile {
    if (emitted.name === measured) return profile
    const index = new Map(this.emitted(measured).ops.map(({ label }, op) => [label, op]))
    const times = profile.times.map(rank =>
      Float64Array.from(emitted.ops, ({ label }) => rank[index.get(label) ?? -1] ?? 0),
    )
    return { ...profile, times }
  }

  async close(): Promise<void> {
    await this.#world.close(this.name)
  }
}

/** Every run of a rank with its schedule. */
export function spansOf(
  loaded: Loaded,
  programs: readonly string[],
  result: Result,
): { scheduled: Scheduled; spans: Spans }[] {
  return result.runs.map((spans, index) => {
    const scheduled = loaded.scheduled.get(programs[index] ?? '')
    if (!scheduled) throw new Error(`no program ${programs[index]}`)
    return { scheduled, spans }
  })
}

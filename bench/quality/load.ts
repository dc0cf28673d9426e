// How evenly the experts are loaded, from what the router counted. Pure.

import type { ModelConfig } from '../../worker/model.ts'
import type { Emitted } from '../../worker/program/program.ts'

/** The program with the gathered counts of its routers in memory that outlives a run, where they can be read. */
export function keepCounts(emitted: Emitted): Emitted {
  const kept = new Set(countsOf(emitted).flatMap(({ buffers }) => buffers))
  const buffers = emitted.buffers.map(buffer =>
    kept.has(buffer.name) ? { ...buffer, arena: 'persistent' as const } : buffer,
  )
  return { ...emitted, buffers }
}

/** Per unit with experts: its buffers of counts, i32 [E] on one rank, two for DGMoE. */
export function countsOf(emitted: Emitted): { unit: number; buffers: string[] }[] {
  const gathered = emitted.ops.filter(({ op }) => op === 'all_gather_counts')
  return [...Map.groupBy(gathered, ({ segment }) => segment.unit)].map(([unit, ops]) => ({
    unit,
    buffers: ops.flatMap(({ outputs }) => outputs),
  }))
}

export interface Load {
  /** Tokens of the fullest expert over the mean of all, of one step and unit; the mean of these. 1 is even, E is all in one. */
  maxOverMean: number
  /** Choices beyond the capacity of their expert, as a share of all. */
  dropped: number
}

/** Adds up counts before drops. `counts`: by way of the tokens (DGMoE has two), [E]. */
export class LoadMeter {
  readonly #capacity: number
  #ratios = 0
  #layers = 0
  #choices = 0
  #dropped = 0

  constructor({ capacity }: Pick<ModelConfig, 'capacity'>) {
    this.#capacity = capacity
  }

  /** One MoE layer in one step. Capacity bounds each way alone, experts do the work of both. */
  add(counts: readonly ArrayLike<number>[]): void {
    const ways = counts.map(way => Array.from(way))
    const sums = (ways[0] ?? []).map((_, expert) => ways.reduce((sum, way) => sum + (way[expert] ?? 0), 0))
    const all = sums.reduce((total, count) => total + count, 0)
    this.#choices += all
    this.#dropped += ways.flat().reduce((total, count) => total + Math.max(0, count - this.#capacity), 0)
    this.#ratios += (Math.max(...sums) * sums.length) / all
    this.#layers++
  }

  /** Undefined where nothing was added: there are no experts. */
  get load(): Load | undefined {
    if (this.#layers === 0) return undefined
    return { maxOverMean: this.#ratios / this.#layers, dropped: this.#dropped / this.#choices }
  }
}

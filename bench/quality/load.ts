// How evenly tokens are spread over the experts, from the counts of the routers. Pure.

import type { ModelConfig } from '../../worker/model/config.ts'
import type { Emitted } from '../../worker/program/program.ts'

/** The program with its routers' gathered counts in persistent memory, so that they can be read. */
export function keepCounts(emitted: Emitted): Emitted {
  const kept = new Set(countsOf(emitted).flatMap(({ buffers }) => buffers))
  const buffers = emitted.buffers.map(buffer =>
    kept.has(buffer.name) ? { ...buffer, arena: 'persistent' as const } : buffer,
  )
  return { ...emitted, buffers }
}

/**
 * Buffers of counts for each unit with experts, i32 [E] on one rank. DGMoE has two buffers, because
 * it routes each token in two ways. /
 */
export function countsOf(emitted: Emitted): { unit: number; buffers: string[] }[] {
  const gathered = emitted.ops.filter(({ op }) => op === 'all_gather_counts')
  return [...Map.groupBy(gathered, ({ segment }) => segment.unit)].map(([unit, ops]) => ({
    unit,
    buffers: ops.flatMap(({ outputs }) => outputs),
  }))
}

export interface Load {
  /**
   * Tokens of the fullest expert over the mean of all experts, averaged over steps and units. 1 is
   * an even load; with E all tokens go to one expert. /
   */
  maxOverMean: number
  /** Share of the choices that are dropped, because their expert is full. */
  dropped: number
}

/** Adds up the tokens that routers send to experts, before any are dropped. */
export class LoadMeter {
  readonly #capacity: number
  #ratios = 0
  #layers = 0
  #choices = 0
  #dropped = 0

  constructor({ capacity }: Pick<ModelConfig, 'capacity'>) {
    this.#capacity = capacity
  }

  /**
   * Adds one MoE layer in one step. `counts` has a list [E] for each way in which tokens are routed
   * (two for DGMoE). Capacity limits each way by itself; the work of an expert is the sum of the
   * ways. /
   */
  add(counts: readonly ArrayLike<number>[]): void {
    const ways = counts.map(way => Array.from(way))
    const sums = (ways[0] ?? []).map((_, expert) => ways.reduce((sum, way) => sum + (way[expert] ?? 0), 0))
    const all = sums.reduce((total, count) => total + count, 0)
    this.#choices += all
    this.#dropped += ways.flat().reduce((total, count) => total + Math.max(0, count - this.#capacity), 0)
    this.#ratios += (Math.max(...sums) * sums.length) / all
    this.#layers++
  }

  /** Undefined if nothing was added, because the model has no experts. */
  get load(): Load | undefined {
    if (this.#layers === 0) return undefined
    return { maxOverMean: this.#ratios / this.#layers, dropped: this.#dropped / this.#choices }
  }
}

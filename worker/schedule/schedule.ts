// Where and when the ops of a program run: the facade of this folder. Pure.

import type { ModelConfig } from '../model.ts'
import type { Emitted, Program, Scheduled } from '../program/program.ts'

/** Microseconds per op, in the order of `emitted.ops`. */
export type Times = Float64Array

/** Start and end of every scheduled op, microseconds; what `engine.run` returns and what `makespan` predicts. */
export interface Spans {
  start: Float64Array
  end: Float64Array
}

export type Slot = 1 | 2 | 3 | 4
export type Strategy = 'Auto' | 'Sequential' | 'Shortcut'
export type Choice = { strategy: 'Sequential' } | { strategy: 'Shortcut'; forwardSlot: Slot; backwardSlot: Slot }

export interface Machine {
  flopsPerSecond: number
  bytesPerSecond: number
  /** Seconds before the first byte of a collective arrives. */
  latencySeconds: number
}

export interface Candidate {
  choice: Choice
  scheduled: Scheduled
  /** Predicted microseconds per run. */
  predicted: number
}

export interface Overlap {
  /** Microseconds the compute queue stood still for an all-to-all (or for the counts before it). */
  waited: number
  /** Microseconds the compute queue stood still for gradient sums. */
  waitedForReduce: number
  /** Microseconds all-to-alls and counts took. */
  communication: number
  /** 100 * (1 - waited / communication), 0..100. */
  hiddenPercent: number
  /** Share of the all-to-alls in the time of the MoE branch (gate .. decode), forward; 0..1. */
  communicationShareOfMoe: number
}

/** First guess from the cost of each op. */
export declare function estimateTimes(emitted: Emitted, machine: Machine): Times
/** Throws ScheduleError where the model has no such slot. `times` place the gradient buckets best; without them, by a rule. */
export declare function schedule(emitted: Emitted, choice: Choice, times?: Times): Scheduled
export declare function makespan(scheduled: Scheduled, emitted: Emitted, times: Times): Spans & { total: number }
/** Durations by emitted op out of a measured run. */
export declare function durations(emitted: Emitted, scheduled: Scheduled, spans: Spans): Times
export declare function choose(
  emitted: Emitted,
  times: Times,
  strategy: Strategy,
  slot?: number,
): Candidate & { candidates: Candidate[] }
/** e.g. `shortcut K=3, backward K=2, 1 chunk` or `sequential`. */
export declare function describe(choice: Choice): string
export declare function overlap(scheduled: Scheduled, spans: Spans): Overlap
export declare function assemble(scheduled: Scheduled, config: ModelConfig, rank: number): Program

// Words of the scheduler.

import type { Scheduled } from '../program/program.ts'

/** Microseconds per op, in the order of the emitted ops. */
export type Times = Float64Array

/** Start and end of every scheduled op, microseconds; what the engine measures and what `makespan` predicts. */
export interface Spans {
  start: Float64Array
  end: Float64Array
  /** Of a measured run: when the last peer had come to the collective; what lies before it is the ranks' skew, not transfer. */
  ready?: Float64Array
  /** Of a measured run: processor time the communication thread spent on the op. */
  cpu?: Float64Array
}

/** What the predictor works from: times of every rank (or of one that stands for all), and what compute loses meanwhile. */
export interface Profile {
  /** By rank. */
  times: readonly Times[]
  /** Share of its speed that compute loses while its rank's communication transfers, 0 to 1. */
  contention: number
  /** Microseconds that splitting adds per further chunk of a collective. */
  latency: number
}

/** From 1: before the first part of the window, before the second, ..., after the last. Windows: see order.ts. */
export type Slot = number
export type Strategy = 'Auto' | 'Sequential' | 'Pipelined' | 'Shortcut'
export const CHUNKS = [1, 2, 4, 8] as const

/**
 * Sequential waits for every all-to-all at once. Pipelined splits the routed rows into chunks, so that the experts work on one while the next
 * travels. Shortcut runs the all-to-all beside the backbone, the experts in one slot per phase, their rows in one or more chunks.
 */
export type Choice =
  | { strategy: 'Sequential' }
  | { strategy: 'Pipelined'; chunks: number }
  | { strategy: 'Shortcut'; forwardSlot: Slot; backwardSlot: Slot; chunks: number }

/** What the user left open or did not. */
export interface Wish {
  strategy: Strategy
  /** Forward slot. */
  slot?: number | undefined
  chunks?: number | undefined
}

export interface Candidate {
  choice: Choice
  scheduled: Scheduled
  /** Predicted microseconds per run. */
  predicted: number
  /** Least time by which an all-to-all ends before it is needed, microseconds; negative: compute waits. */
  slack: number
}

/** A caller asks for a schedule that the program does not have: a defect, since rules check the job. */
export class ScheduleError extends Error {
  override readonly name = 'ScheduleError'
}

// Types of the scheduler.

import type { Scheduled } from '../program/program.ts'

/** Microseconds of each op, in the order of the emitted ops. */
export type Times = Float64Array

/**
 * Start and end of every scheduled op in microseconds, as the engine measures or `makespan`
 * predicts them.
 */
export interface Spans {
  start: Float64Array
  end: Float64Array
  /**
   * The time at which the last peer had come to a collective. The time before it is the skew of the
   * ranks and not transfer.
   */
  ready?: Float64Array
  /** The processor time that the communication thread spent on the op; only in a measured run. */
  cpu?: Float64Array
}

/** The times that predictions are made from. */
export interface Profile {
  /** The times of every rank, or of one rank that stands for all. */
  times: readonly Times[]
  /** The share of its speed that compute loses while its rank transfers data, 0 to 1. */
  contention: number
  /** Microseconds that each further chunk of a collective adds. */
  latency: number
}

/**
 * Place of the experts in a window, from 1: before its first part, before its second part, ...,
 * after its last part. See order.ts for windows.
 */
export type Slot = number
export type Strategy = 'Auto' | 'Sequential' | 'Pipelined' | 'Shortcut'
export const CHUNKS = [1, 2, 4, 8] as const

/**
 * Sequential waits for every all-to-all at once. Pipelined splits the routed rows into chunks, so
 * that the experts work on one chunk while the next one travels. Shortcut runs the all-to-all
 * beside the backbone, with the experts in one slot in each phase and their rows in one or more
 * chunks.
 */
export type Choice =
  | { strategy: 'Sequential' }
  | { strategy: 'Pipelined'; chunks: number }
  | { strategy: 'Shortcut'; forwardSlot: Slot; backwardSlot: Slot; chunks: number }

/** The part of a choice that the user makes. Undefined fields are left open. */
export interface Wish {
  strategy: Strategy
  /** Slot in the forward phase. */
  slot?: number | undefined
  chunks?: number | undefined
}

export interface Candidate {
  choice: Choice
  scheduled: Scheduled
  /** Predicted microseconds of a run. */
  predicted: number
  /**
   * The least time by which an all-to-all ends before it is needed, in microseconds; negative if
   * compute waits.
   */
  slack: number
}

/** A caller asks for a schedule that the program does not have: a defect, since rules check the job. */
export class ScheduleError extends Error {
  override readonly name = 'ScheduleError'
}

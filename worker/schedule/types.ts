// Words of the scheduler.

import type { Scheduled } from '../program/program.ts'

/** Microseconds per op, in the order of the emitted ops. */
export type Times = Float64Array

/** Start and end of every scheduled op, microseconds; what the engine measures and what `makespan` predicts. */
export interface Spans {
  start: Float64Array
  end: Float64Array
}

export type Slot = 1 | 2 | 3 | 4
export type Strategy = 'Auto' | 'Sequential' | 'Shortcut'

/**
 * Sequential waits for every all-to-all at once. Shortcut runs it beside the backbone; slots count in the order of time:
 * forward 1 before MLP, 2 before the second attention, 3 before the shared expert, 4 after it;
 * backward 1 before the shared expert's backward, 2 before the second attention's, 3 before the MLP's, 4 after it.
 */
export type Choice = { strategy: 'Sequential' } | { strategy: 'Shortcut'; forwardSlot: Slot; backwardSlot: Slot }

export interface Candidate {
  choice: Choice
  scheduled: Scheduled
  /** Predicted microseconds per run. */
  predicted: number
  /** Least time by which an all-to-all ends before it is needed, microseconds; negative: compute waits. */
  slack: number
}

/** The model has no such schedule; the text says which ones it has. */
export class ScheduleError extends Error {
  override readonly name = 'ScheduleError'
}

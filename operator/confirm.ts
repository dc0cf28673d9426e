// Holds back what cannot be taken back until a second look, seconds later, finds the same. A clock
// that was wrong for a moment then ends no job. Pure.

import type { Plan } from './plan/plan.ts'

/** The deadline that a look at a job found to be over, and when, by a clock that never jumps. */
export type Look = { deadline: string; at: number }

export const BETWEEN_LOOKS_MILLISECONDS = 3000

/**
 * The plan itself if nothing in it rests on a deadline alone, or if an earlier look found the same
 * deadline to be over. Otherwise a plan that waits for the next look. `isAgreed` says whether the
 * deadline is also over by the most careful clock.
 */
export function confirmed(
  wanted: Plan,
  { before, at, now, isAgreed }: { before: Look | undefined; at: number; now: number; isAgreed: boolean },
): { plan: Plan; look?: Look } {
  const { deadline } = wanted
  if (deadline === undefined) return { plan: wanted }
  const look = before?.deadline === deadline ? before : { deadline, at }
  const end = look.at + BETWEEN_LOOKS_MILLISECONDS
  if (at >= end && isAgreed) return { plan: wanted }
  return { plan: { actions: [], requeueAt: now + Math.max(1000, end - at) }, look }
}

// Decisions and work of all ranks together, outside the engine's programs. Every function here is
// collective: all ranks call it at the same point, with the same fields or sizes.

import { setTimeout as sleep } from 'node:timers/promises'

/** Small control-plane sum over all ranks; the same bits on every rank. */
export type Reduce = (values: Float64Array) => Promise<Float64Array>

/** For each field, whether it is true on any rank, or the sum of its values over all ranks. */
export type Together<T> = { [Field in keyof T]: T[Field] extends boolean ? boolean : number }

/** Combines this rank's fields with those of the other ranks: any rank's `true`, or the sum. */
export async function together<T extends Record<string, boolean | number>>(reduce: Reduce, own: T): Promise<Together<T>>
export async function together(
  reduce: Reduce,
  own: Record<string, boolean | number>,
): Promise<Record<string, boolean | number>> {
  const fields = Object.entries(own)
  const sums = await reduce(Float64Array.from(fields, ([, value]) => Number(value)))
  return Object.fromEntries(
    fields.map(([field, value], at) => {
      const sum = sums[at] ?? 0
      return [field, typeof value === 'boolean' ? sum > 0 : sum]
    }),
  )
}

/**
 * The numbers of every rank, by rank. All ranks give equally many. Each rank adds zeros to the
 * numbers of the others, so they arrive exactly, with the same bits on every rank.
 */
export async function gathered(
  reduce: Reduce,
  { rank, worldSize }: { rank: number; worldSize: number },
  own: ArrayLike<number>,
): Promise<Float64Array[]> {
  const rows = new Float64Array(worldSize * own.length)
  rows.set(own, rank * own.length)
  const all = await reduce(rows)
  return Array.from({ length: worldSize }, (_, from) => all.slice(from * own.length, (from + 1) * own.length))
}

export type Outcome<T> = { value: T } | { error: unknown }

const BEAT_MILLISECONDS = 500

/**
 * Runs `work` here and returns its outcome when the work of every rank has finished. The ranks
 * exchange a beat meanwhile, so that a slow disk is not taken for a dead rank, and a dead rank is
 * still noticed.
 */
export async function everywhere<T>(reduce: Reduce, work: () => Promise<T>): Promise<Outcome<T>> {
  const done: { outcome?: Outcome<T> } = {}
  const settle = async () => {
    try {
      done.outcome = { value: await work() }
    } catch (error) {
      done.outcome = { error }
    }
  }
  const finished = settle()
  for (;;) {
    const beat = new AbortController()
    await Promise.race([finished, sleep(BEAT_MILLISECONDS, undefined, { signal: beat.signal }).catch(() => undefined)])
    beat.abort()
    const all = await together(reduce, { working: done.outcome === undefined })
    if (!all.working && done.outcome) return done.outcome
  }
}

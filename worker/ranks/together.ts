// Work that all ranks do at the same time outside the engine's programs, such as reading and writing files.

import { setTimeout as sleep } from 'node:timers/promises'

/** Small control-plane sum over all ranks; the same bits on every rank. */
export type Reduce = (values: Float64Array) => Promise<Float64Array>

export type Outcome<T> = { value: T } | { error: unknown }

const BEAT_MILLISECONDS = 500

/**
 * Runs `work` here and returns its outcome when it has finished on every rank; collective. The ranks exchange a beat meanwhile, so that a
 * slow disk is not taken for a dead rank, and a dead rank is still noticed.
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
    const working = await reduce(Float64Array.of(done.outcome ? 0 : 1))
    if (working[0] === 0 && done.outcome) return done.outcome
  }
}

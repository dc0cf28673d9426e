// One outcome for all ranks: what failed on one of them fails on all.

import type { WorkerFailure } from '../failure.ts'
import { gathered, type Outcome } from '../ranks/together.ts'
import type { CheckpointPlace } from './place.ts'

/**
 * The value of this rank's work if no rank failed; collective. Otherwise a rank that failed throws
 * its own error, and the others blame the first of them.
 */
export async function agreed<T>(
  { rank, model, reduce }: Pick<CheckpointPlace, 'rank' | 'model' | 'reduce'>,
  outcome: Outcome<T>,
  blame: (peer: number) => WorkerFailure,
): Promise<T> {
  const failed = await gathered(reduce, { rank, worldSize: model.worldSize }, [Number('error' in outcome)])
  if ('error' in outcome) throw outcome.error
  const peer = failed.findIndex(([hasFailed = 0]) => hasFailed > 0)
  if (peer >= 0) throw blame(peer)
  return outcome.value
}

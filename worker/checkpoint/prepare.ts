// The preparation of a folder of checkpoints, before a gang reads or writes one.

import { randomInt } from 'node:crypto'
import { WorkerFailure } from '../failure.ts'
import { parameterCounts } from '../model/tensors.ts'
import { everywhere, together } from '../ranks/together.ts'
import { agreed } from './agree.ts'
import { claim } from './claim.ts'
import { type CheckpointPlace, writersOf } from './place.ts'
import { demandRoom } from './room.ts'
import { removeLeftovers } from './temporary.ts'

/** A parameter and its two moments. */
const BYTES_PER_PARAMETER = 12

/**
 * Gives the gang a name, takes the folder for it, removes what earlier gangs left unfinished, and
 * makes sure that checkpoints can be written; collective. Throws the same on all ranks if not.
 */
export async function preparePlace(place: Omit<CheckpointPlace, 'gang'>): Promise<CheckpointPlace> {
  const { rank, model, reduce, directory } = place
  // Only rank 0 chooses the name; the others add 0.
  const { gang } = await together(reduce, { gang: rank === 0 ? randomInt(2 ** 47) : 0 })
  const own: CheckpointPlace = { ...place, gang: gang.toString(36) }
  const outcome = await everywhere(reduce, async () => {
    if (rank < writersOf(model)) await demandRoom(own, 0)
    if (rank > 0) return
    await claim(own)
    await removeLeftovers(own)
    await demandRoom(own, BYTES_PER_PARAMETER * parameterCounts(model).total)
  })
  await agreed(
    own,
    outcome,
    peer => new WorkerFailure('checkpoint', `Rank ${peer} cannot use ${directory}; its log says why.`, { peer }),
  )
  return own
}

// How the ranks find each other: every rank announces itself to rank 0, which answers all of them
// with the table of addresses once no rank is missing. Each proves to the other that it knows the
// job's secret (protocol.ts).

import { join } from './join.ts'
import type { Meeting, Mesh } from './meeting.ts'
import { attemptKey, engineToken, makeNonce } from './proof.ts'
import { receive } from './reception.ts'

/**
 * Meets the other ranks. Throws a `rendezvous` failure that lists the missing ranks, or `portInUse`
 * on rank 0.
 */
export async function meet(meeting: Meeting): Promise<Mesh> {
  if (meeting.worldSize === 1) {
    return {
      peers: [{ host: '127.0.0.1', port: meeting.enginePort }],
      token: engineToken(attemptKey(meeting), makeNonce()),
    }
  }
  return meeting.rank === 0 ? receive(meeting) : join(meeting)
}

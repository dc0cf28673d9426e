// How the ranks find each other: every rank announces itself to rank 0, which answers all of them
// with the table of addresses once no rank is missing.

import { randomBytes } from 'node:crypto'
import { join } from './join.ts'
import type { Meeting, Mesh } from './meeting.ts'
import { receive } from './reception.ts'

/**
 * Meets the other ranks. Throws a `rendezvous` failure that lists the missing ranks, or `portInUse`
 * on rank 0.
 */
export async function meet(meeting: Meeting): Promise<Mesh> {
  if (meeting.worldSize === 1) {
    return { peers: [{ host: '127.0.0.1', port: meeting.enginePort }], token: randomBytes(16).toString('hex') }
  }
  return meeting.rank === 0 ? receive(meeting) : join(meeting)
}

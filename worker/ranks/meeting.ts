// The input and the result of a rendezvous.

import type { PeerAddress } from '../engine.ts'

export interface Meeting {
  jobUid: string
  attempt: number
  rank: number
  worldSize: number
  /** The address at which rank 0 listens. */
  rendezvous: { host: string; port: number }
  /** The port at which this rank's engine listens. */
  enginePort: number
  deadlineMilliseconds: number
  signal: AbortSignal
  log: (message: string) => void
}

export interface Mesh {
  peers: PeerAddress[]
  /** Random, and the same on every rank of this attempt. Engines refuse connections without it. */
  token: string
}

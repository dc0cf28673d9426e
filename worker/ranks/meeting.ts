// The input and the result of a rendezvous.

import type { PeerAddress } from '../engine.ts'
import type { Membership } from './proof.ts'

export interface Meeting extends Membership {
  rank: number
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
  /** The same on every rank of this attempt. Engines refuse connections that cannot prove it. */
  token: string
}

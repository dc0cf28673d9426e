// The interface that every provider of clusters implements: kind.ts with Docker, embedded.ts
// without.

import type { Mode } from './config.ts'
import type { Progress } from './programs/binaries.ts'
import type { ClusterRecord } from './state.ts'

export type ProviderName = 'existing' | 'kind' | 'embedded'

export type UpRequest = {
  readonly mode: Mode
  readonly stateDir: string
  readonly lifetime: 'process' | 'detached'
  readonly onProgress: Progress
}

/** How a caller reaches a cluster that runs. */
export type ClusterAccess = {
  /** The path of a file for any ordinary client on this machine. */
  readonly kubeconfig: string
  /**
   * Words that, put before a command, run it in the network that reaches the addresses of pods
   * and services. Empty if this machine has no such network.
   */
  readonly enter: readonly string[]
  /** Makes the images of a docker-archive known to the node. */
  imageImport(tar: string): Promise<void>
}

export type Status = {
  readonly provider: ProviderName
  readonly mode: Mode
  readonly healthy: boolean
  /** Sentences for people, one per line. */
  readonly details: readonly string[]
}

export type Provider = {
  /**
   * Builds what a start needs. This takes minutes the first time, and no lock on the cluster is
   * held meanwhile, so that its status can be asked for and `down` works. The returned function
   * starts the cluster, or finds the healthy one in the state folder; the caller holds the lock.
   */
  prepare(request: UpRequest): Promise<() => Promise<ClusterAccess>>
  /** Ends the part of a cluster that is not a process or a mount of its record. */
  end(stateDir: string): Promise<void>
  status(stateDir: string, record: ClusterRecord): Promise<Status>
}

// The number of a job's ranks, and the ranks of each worker: one for each GPU, or one for a worker
// without GPUs. Pure.

import type { ScMoEJobSpec } from './scmoejob.ts'

type Workers = Pick<ScMoEJobSpec['workers'], 'replicas' | 'gpusPerWorker'>
type Sized = { workers: Workers }

/** The device that a rank computes on. */
export type BackendName = 'cpu' | 'cuda'

/** The most ranks of one job. */
export const MAX_RANKS = 1024

/** Worker `i` has the ranks from `i * ranksPerWorker` on. */
export const ranksPerWorker = ({ workers }: Sized): number => Math.max(1, workers.gpusPerWorker)

export const worldSizeOf = (spec: Sized): number => spec.workers.replicas * ranksPerWorker(spec)

export const backendOf = ({ workers }: Sized): BackendName => (workers.gpusPerWorker > 0 ? 'cuda' : 'cpu')

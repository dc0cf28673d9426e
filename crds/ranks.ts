// How many ranks a job has, and which of them a worker runs: one per GPU, one per worker where there are none. Pure.

import type { ScMoEJobSpec } from './scmoejob.ts'

type Workers = Pick<ScMoEJobSpec['workers'], 'replicas' | 'gpusPerWorker'>
type Sized = { workers: Workers }

/** What computes. */
export type BackendName = 'cpu' | 'cuda'

/** Worker `i` has the ranks from `i * ranksPerWorker` on. */
export const ranksPerWorker = ({ workers }: Sized): number => Math.max(1, workers.gpusPerWorker)

export const worldSizeOf = (spec: Sized): number => spec.workers.replicas * ranksPerWorker(spec)

export const backendOf = ({ workers }: Sized): BackendName => (workers.gpusPerWorker > 0 ? 'cuda' : 'cpu')

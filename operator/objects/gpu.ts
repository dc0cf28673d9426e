// The parts of a worker's pod that depend on its GPUs.
// Everything here is allowed by the restricted Pod Security level.

import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type Json, list, type Named, record } from './json.ts'

const SHARED_MEMORY = 'scmoe-shm'

/** The job says how many GPUs there are, so the template's request for that resource is ignored. */
export function gpuContainer({ workers }: ScMoEJobSpec, template: Named): Json {
  if (workers.gpusPerWorker === 0) return {}
  const resources = record(template['resources'])
  const limits = { ...record(resources['limits']), [workers.gpuResourceName]: String(workers.gpusPerWorker) }
  const { [workers.gpuResourceName]: _, ...requests } = record(resources['requests'])
  return { resources: { ...resources, limits, ...(resources['requests'] === undefined ? {} : { requests }) } }
}

/** Nodes with GPUs often have a taint named after the resource, which keeps other pods away. */
export function gpuPod({ workers }: ScMoEJobSpec, template: Json): Json {
  if (workers.gpusPerWorker === 0) return {}
  const given = list(template['tolerations'])
  const taint = { key: workers.gpuResourceName, operator: 'Exists', effect: 'NoSchedule' }
  const known = given.some(({ key, effect }) => key === taint.key && (effect === undefined || effect === taint.effect))
  return { tolerations: known ? given : [...given, taint] }
}

/**
 * Shared memory for the processes of one pod. NCCL exchanges data through it, and the container
 * runtime's default of 64 MiB is too small. The volume counts towards the pod's memory.
 */
export const gpuVolumes = ({ workers }: ScMoEJobSpec): Named[] =>
  workers.gpusPerWorker > 1 ? [{ name: SHARED_MEMORY, emptyDir: { medium: 'Memory' } }] : []

export const gpuMounts = ({ workers }: ScMoEJobSpec): Json[] =>
  workers.gpusPerWorker > 1 ? [{ name: SHARED_MEMORY, mountPath: '/dev/shm' }] : []

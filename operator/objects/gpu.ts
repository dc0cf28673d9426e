// What a worker's pod has for its GPUs. Nothing here needs more than the restricted Pod Security level. Pure.

import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { list, type Named, record } from './owned.ts'
import type { Json } from './wire.ts'

const SHARED_MEMORY = 'scmoe-shm'

/** The GPUs are the job's to say: what the template asks of the same resource does not count. */
export function gpuContainer({ workers }: ScMoEJobSpec, template: Named): Json {
  if (workers.gpusPerWorker === 0) return {}
  const resources = record(template['resources'])
  const limits = { ...record(resources['limits']), [workers.gpuResourceName]: String(workers.gpusPerWorker) }
  const { [workers.gpuResourceName]: _, ...requests } = record(resources['requests'])
  return { resources: { ...resources, limits, ...(resources['requests'] === undefined ? {} : { requests }) } }
}

/** Nodes with GPUs are often tainted with the resource's name, so that nothing else runs there. */
export function gpuPod({ workers }: ScMoEJobSpec, template: Json): Json {
  if (workers.gpusPerWorker === 0) return {}
  const given = list(template['tolerations'])
  const taint = { key: workers.gpuResourceName, operator: 'Exists', effect: 'NoSchedule' }
  const known = given.some(({ key, effect }) => key === taint.key && (effect === undefined || effect === taint.effect))
  return { tolerations: known ? given : [...given, taint] }
}

/** Processes on GPUs of one node exchange through it; the default of 64 MiB is too small. Counts as memory of the pod. */
export const gpuVolumes = ({ workers }: ScMoEJobSpec): Named[] =>
  workers.gpusPerWorker > 1 ? [{ name: SHARED_MEMORY, emptyDir: { medium: 'Memory' } }] : []

export const gpuMounts = ({ workers }: ScMoEJobSpec): Json[] =>
  workers.gpusPerWorker > 1 ? [{ name: SHARED_MEMORY, mountPath: '/dev/shm' }] : []

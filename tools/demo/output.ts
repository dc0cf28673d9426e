// Copies the job's checkpoints, trace and summary out of the cluster before the cluster ends.

import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Cluster } from '../cluster/cluster.ts'
import { INSIDE_ROOT } from '../cluster/namespaces.ts'
import { type Kubectl, ROOT } from '../install.ts'
import type { Job } from './follow.ts'

export interface Output {
  /** Sentences about the files. */
  lines: string[]
  /** The folder below this checkout, if files were copied. */
  folder?: string
}

interface Volume {
  spec: { hostPath?: { path: string } }
}

/**
 * Copies the files of the job to scmoe-out/demo/<job>. On a cluster that is not the embedded one it
 * copies nothing and names the volume claim.
 */
export async function saveOutput(
  cluster: Cluster,
  kubectl: Kubectl,
  { namespace, job }: { namespace: string; job: Job },
): Promise<Output> {
  const claim = job.spec.checkpoint?.volume?.persistentVolumeClaim?.claimName
  if (claim === undefined) return { lines: ['the job keeps no checkpoints (spec.checkpoint is not set)'] }
  const get = (...args: string[]): Promise<string> => kubectl('get', ...args)
  const volume = await get('pvc', claim, '-n', namespace, '-o', 'jsonpath={.spec.volumeName}')
  const { spec } = JSON.parse(await get('pv', volume, '-o', 'json')) as Volume
  const inside = `${namespace}/${job.metadata.name}`
  if (cluster.provider !== 'embedded' || spec.hostPath === undefined) {
    return { lines: [`trace and checkpoints: folder ${inside} of the volume claim ${claim}`] }
  }
  const from = join(cluster.stateDir, relative(INSIDE_ROOT, spec.hostPath.path), inside)
  const to = join(ROOT, 'scmoe-out', 'demo', job.metadata.name)
  if (!existsSync(from)) throw new Error(`${job.metadata.name} is Complete but wrote nothing to ${from}`)
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to, { recursive: true })
  cpSync(from, to, { recursive: true })
  const shown = (name: string): string => relative(ROOT, join(to, name))
  const lines = [
    `trace (open it in Perfetto): ${shown('trace-rank0.json')}`,
    `checkpoint of step ${job.status?.lastCheckpoint?.step ?? '?'}: ${shown('checkpoints')}`,
  ]
  return { lines, folder: relative(ROOT, to) }
}

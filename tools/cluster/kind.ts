// Clusters of kind (https://kind.sigs.k8s.io), which needs a Docker engine.

import { join } from 'node:path'
import { run } from '../process.ts'
import { findProgram } from './programs/packages.ts'
import type { ClusterAccess, Provider, Status, UpRequest } from './provider.ts'
import { type ClusterRecord, clean, clusterId, readRecord, writeRecord } from './state.ts'

/** The command lines of kind for the cluster of a state folder. Pure. */
export function kindCommands(stateDir: string): Record<'create' | 'delete' | 'load' | 'list', string[]> {
  const name = ['--name', clusterId(stateDir)]
  const kubeconfig = ['--kubeconfig', join(stateDir, 'kubeconfig')]
  return {
    create: ['create', 'cluster', ...name, ...kubeconfig, '--wait', '180s'],
    delete: ['delete', 'cluster', ...name, ...kubeconfig],
    load: ['load', 'image-archive', ...name],
    list: ['get', 'clusters'],
  }
}

/** Whether kind is on PATH and a Docker engine answers. */
export async function kindIsUsable(): Promise<boolean> {
  if (findProgram('kind') === undefined || findProgram('docker') === undefined) return false
  return run('docker', ['info', '--format', '{{.ServerVersion}}']).then(
    version => version.trim() !== '',
    () => false,
  )
}

export const kind: Provider = {
  prepare: async request => {
    if (request.mode === 'api') throw new Error("kind has no mode 'api'; use provider 'embedded' for it")
    return () => start(request)
  },
  end,
  status,
}

/**
 * kind's clusters outlive every process, so `lifetime` makes no difference here: `down` ends them.
 */
async function start({ stateDir, mode, onProgress }: UpRequest): Promise<ClusterAccess> {
  const found = readRecord(stateDir)
  if (found?.provider !== 'kind' || !(await isRunning(stateDir))) {
    if (found?.provider === 'kind') await end(stateDir)
    await clean(stateDir)
    writeRecord(stateDir, { provider: 'kind', mode, port: 0, processes: [], ready: false })
    onProgress(`creating kind cluster ${clusterId(stateDir)} …`)
    await run('kind', kindCommands(stateDir).create)
  }
  return {
    kubeconfig: join(stateDir, 'kubeconfig'),
    enter: [],
    imageImport: async tar => {
      await run('kind', [...kindCommands(stateDir).load, tar])
    },
  }
}

async function end(stateDir: string): Promise<void> {
  await run('kind', kindCommands(stateDir).delete)
}

async function status(stateDir: string, record: ClusterRecord): Promise<Status> {
  const healthy = await isRunning(stateDir)
  const details = [`kind cluster ${clusterId(stateDir)}, ${healthy ? 'healthy' : 'not healthy'}`, `state ${stateDir}`]
  return { provider: 'kind', mode: record.mode, healthy, details }
}

async function isRunning(stateDir: string): Promise<boolean> {
  const names = (await run('kind', kindCommands(stateDir).list)).split('\n')
  if (!names.includes(clusterId(stateDir))) return false
  const ready = ['--kubeconfig', join(stateDir, 'kubeconfig'), 'get', '--raw', '/readyz', '--request-timeout', '3s']
  return run('kubectl', ready).then(
    () => true,
    () => false,
  )
}

// kind, where a Docker engine runs: https://kind.sigs.k8s.io

import { join } from 'node:path'
import { run } from '../process.ts'
import type { Status } from './cluster.ts'
import type { ClusterParts, UpRequest } from './embedded.ts'
import { findProgram } from './programs/packages.ts'
import { type ClusterRecord, clean, clusterId, readRecord, writeRecord } from './state.ts'

/** The command lines of what is asked of kind. Pure. */
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

/** kind's clusters outlive every process, so `lifetime` makes no difference here: end them with `down`. */
export async function upKind({ stateDir, mode, onProgress }: UpRequest): Promise<ClusterParts> {
  if (mode === 'api') throw new Error("kind has no mode 'api'; use provider 'embedded' for it")
  const found = readRecord(stateDir)
  if (found?.provider !== 'kind' || !(await isRunning(stateDir))) {
    if (found?.provider === 'kind') await kindDown(stateDir)
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

export async function kindDown(stateDir: string): Promise<void> {
  await run('kind', kindCommands(stateDir).delete)
}

export async function kindStatus(stateDir: string, record: ClusterRecord): Promise<Status> {
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

// Starts and ends real Kubernetes clusters for the demo and the tests. The provider is a cluster of
// the user, kind with Docker, or the embedded cluster without Docker.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { withLock } from '../lock.ts'
import { killTree } from '../process.ts'
import type { Mode } from './config.ts'
import { embedded } from './embedded.ts'
import { kind, kindIsUsable } from './kind.ts'
import type { Progress } from './programs/binaries.ts'
import type { ClusterAccess, ProviderName, Status } from './provider.ts'
import { checkedStateDir, clean, defaultStateDir, readRecord } from './state.ts'

const PROVIDERS = { kind, embedded }

export type UpOptions = {
  /** `api`: etcd and an API server, without root; `node` (the default): a node that runs pods. */
  readonly mode?: Mode
  /** `auto` (the default): kind if kind and a Docker engine answer, otherwise embedded. */
  readonly provider?: ProviderName | 'auto'
  /** The folder of everything the cluster writes. Clusters in different folders can coexist. */
  readonly stateDir?: string
  /**
   * `process` (the default): the cluster ends with the calling process, however that ends.
   * `detached`: the cluster ends with `down`.
   */
  readonly lifetime?: 'process' | 'detached'
  readonly onProgress?: Progress
}

export type Cluster = ClusterAccess & {
  readonly provider: ProviderName
  readonly mode: Mode
  readonly stateDir: string
  down(): Promise<void>
}

/** The provider that `auto` means here. kind cannot run an API server without a node. */
async function chooseProvider(mode: Mode, wanted: ProviderName | 'auto' = 'auto'): Promise<ProviderName> {
  if (wanted !== 'auto') return wanted
  return mode === 'node' && (await kindIsUsable()) ? 'kind' : 'embedded'
}

/**
 * Starts a cluster, or finds the healthy one that the state folder already holds. A cluster whose
 * start was not completed is removed first.
 */
export async function up(options: UpOptions = {}): Promise<Cluster> {
  const mode = options.mode ?? 'node'
  const stateDir = checkedStateDir(options.stateDir ?? defaultStateDir(mode))
  const provider = await chooseProvider(mode, options.provider)
  if (provider === 'existing') return existing(mode, stateDir)
  const request = {
    mode,
    stateDir,
    lifetime: options.lifetime ?? 'process',
    onProgress: options.onProgress ?? ((): void => {}),
  }
  const waiting = (): void => request.onProgress('waiting for another process that works on this cluster')
  const start = await PROVIDERS[provider].prepare(request)
  const access = await withLock(stateDir, start, waiting)
  return { provider, mode, stateDir, down: async () => void (await down(stateDir)), ...access }
}

/**
 * Ends the cluster, in whatever state it is, and removes every trace of it; returns whether there
 * was one. A cluster that is being started ends too, and its `up` fails.
 */
export async function down(stateDir: string): Promise<boolean> {
  const folder = checkedStateDir(stateDir)
  const record = readRecord(folder)
  if (record !== undefined) await killTree(record.processes)
  return withLock(folder, async () => {
    const last = readRecord(folder) ?? record
    if (last !== undefined) await PROVIDERS[last.provider].end(folder)
    await clean(folder)
    return last !== undefined
  })
}

/** The status of the cluster in the state folder; undefined if there is none. */
export async function status(stateDir: string): Promise<Status | undefined> {
  const record = readRecord(checkedStateDir(stateDir))
  if (record === undefined) return undefined
  return PROVIDERS[record.provider].status(stateDir, record)
}

/** The path of the kubeconfig that `up` wrote. */
export function kubeconfigPath(stateDir: string): string {
  return join(checkedStateDir(stateDir), 'kubeconfig')
}

function existing(mode: Mode, stateDir: string): Cluster {
  const kubeconfig = process.env['KUBECONFIG']
  if (kubeconfig === undefined || !existsSync(kubeconfig)) {
    throw new Error(
      `provider 'existing' uses the cluster of KUBECONFIG, which is ${kubeconfig ?? 'not set'}; set it to a kubeconfig file`,
    )
  }
  return {
    provider: 'existing',
    mode,
    stateDir,
    kubeconfig,
    enter: [],
    imageImport: () =>
      Promise.reject(
        new Error('images cannot be imported into an existing cluster; push them to a registry it pulls from'),
      ),
    down: () => Promise.resolve(),
  }
}

// The state folder of a cluster. It is removed with the cluster, so a folder that was not created
// here is refused.

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { cacheRoot } from '../cache.ts'
import { errorCode, killTree, type ProcessIdentity, run } from '../process.ts'
import { removeCgroups } from './cgroups.ts'
import type { Mode } from './config.ts'

export type ClusterRecord = {
  readonly provider: 'embedded' | 'kind'
  readonly mode: Mode
  readonly port: number
  /**
   * The first process outside the namespaces and the first inside; all others descend from them.
   */
  readonly processes: readonly ProcessIdentity[]
  readonly ready: boolean
}

const RECORD = 'cluster.json'
const LONGEST_SOCKET = 'containerd.sock.ttrpc'
const SOCKET_PATH_BYTES = 107

export function defaultStateDir(mode: Mode): string {
  return join(cacheRoot(), mode === 'api' ? 'cluster-api' : 'cluster')
}

/** The absolute path. Throws if the paths of sockets in it would be too long. */
export function checkedStateDir(path: string): string {
  const folder = resolve(path)
  const socket = join(folder, LONGEST_SOCKET)
  if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES) {
    throw new Error(
      `state folder '${folder}' is too long for a socket's path; choose one of at most ${SOCKET_PATH_BYTES - LONGEST_SOCKET.length - 1} bytes with --state`,
    )
  }
  return folder
}

/** The name of this cluster's control groups, different for each state folder. */
export function clusterId(stateDir: string): string {
  return `scmoe-${createHash('sha256').update(stateDir).digest('hex').slice(0, 8)}`
}

export function readRecord(stateDir: string): ClusterRecord | undefined {
  try {
    const record: ClusterRecord = JSON.parse(readFileSync(join(stateDir, RECORD), 'utf8'))
    return record
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw new Error(`${join(stateDir, RECORD)} cannot be read`, { cause: error })
  }
}

export function writeRecord(stateDir: string, record: ClusterRecord): void {
  mkdirSync(stateDir, { recursive: true, mode: 0o700 })
  const path = join(stateDir, RECORD)
  writeFileSync(`${path}.tmp`, `${JSON.stringify(record, null, 2)}\n`)
  renameSync(`${path}.tmp`, path)
}

/** The mounts at or below `folder` in the text of /proc/mounts, the innermost first. Pure. */
export function mountsBelow(mounts: string, folder: string): string[] {
  return mounts
    .split('\n')
    .map(line => (line.split(' ')[1] ?? '').replaceAll('\\040', ' '))
    .filter(path => `${path}/`.startsWith(`${folder}/`))
    .toReversed()
}

/** Ends the processes of the record and removes every trace. The caller must hold the lock. */
export async function clean(stateDir: string): Promise<void> {
  const record = readRecord(stateDir)
  if (record === undefined) {
    if (existsSync(stateDir) && readdirSync(stateDir).length > 0) {
      throw new Error(`'${stateDir}' is not empty and holds no cluster; choose another folder with --state`)
    }
    return
  }
  await killTree(record.processes)
  for (const path of mountsBelow(readFileSync('/proc/mounts', 'utf8'), stateDir)) await run('umount', ['-l', path])
  if (record.mode === 'node') await removeCgroups(clusterId(stateDir))
  rmSync(stateDir, { recursive: true, force: true, maxRetries: 3 })
}

// The control groups of one cluster's pods. Each cluster has a folder of its own in every
// hierarchy, so that clusters do not disturb each other.

import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorCode } from '../process.ts'

export type Hierarchy = { readonly path: string; readonly version: 1 | 2 }

/** Every mounted hierarchy in the text of /proc/mounts. Pure. */
export function hierarchies(mounts: string): Hierarchy[] {
  return mounts.split('\n').flatMap(line => {
    const [, path, type] = line.split(' ')
    if (path === undefined || (type !== 'cgroup' && type !== 'cgroup2')) return []
    return [{ path, version: type === 'cgroup' ? 1 : 2 }]
  })
}

export function makeCgroups(name: string, mounts = readFileSync('/proc/mounts', 'utf8')): void {
  for (const { path, version } of hierarchies(mounts)) {
    if (version === 2) enableControllers(path)
    const folder = join(path, name)
    mkdirSync(folder, { recursive: true })
    if (version === 2) enableControllers(folder)
    // A new cpuset of version 1 has no processors, and no process can enter it.
    for (const file of ['cpuset.cpus', 'cpuset.mems']) copyFromParent(path, folder, file)
  }
}

/** Removes the folders `name` in every hierarchy; their processes must have ended. */
export async function removeCgroups(name: string, mounts = readFileSync('/proc/mounts', 'utf8')): Promise<void> {
  for (const { path } of hierarchies(mounts)) await removeFolder(join(path, name))
}

async function removeFolder(folder: string): Promise<void> {
  for (const entry of subfolders(folder)) await removeFolder(join(folder, entry))
  const deadline = performance.now() + 5000
  for (;;) {
    try {
      rmdirSync(folder)
      return
    } catch (error) {
      const code = errorCode(error)
      if (code === 'ENOENT') return
      // The kernel lets go of a control group a moment after its last process has ended.
      if (code !== 'EBUSY' || performance.now() > deadline) throw error
    }
    await sleep(50)
  }
}

function subfolders(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).flatMap(entry => (entry.isDirectory() ? [entry.name] : []))
  } catch {
    return []
  }
}

/** Enables each controller separately, so that one which the machine lacks does not stop others. */
function enableControllers(folder: string): void {
  for (const controller of ['cpuset', 'cpu', 'io', 'memory', 'hugetlb', 'pids']) {
    try {
      writeFileSync(join(folder, 'cgroup.subtree_control'), `+${controller}`)
    } catch {}
  }
}

function copyFromParent(parent: string, folder: string, file: string): void {
  try {
    writeFileSync(join(folder, file), readFileSync(join(parent, file), 'utf8').trim())
  } catch {}
}

// How many threads a worker may compute with: what the cgroup's CPU quota allows, or the cores it may run on.

import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'

export type ReadText = (path: string) => string | undefined

const readText: ReadText = path => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/**
 * CPUs the quota of this process's cgroup (v2 or v1), or of one above it, allows; undefined without a quota. A fraction is rounded down, to at
 * least 1: more threads than quota are throttled together, and a throttled rank holds up every other rank.
 */
export function quotaThreads(read: ReadText = readText): number | undefined {
  const quotas = cgroupFolders(read('/proc/self/cgroup') ?? '').flatMap(folder => {
    const quota = quotaOf(folder, read)
    return quota === undefined ? [] : [quota]
  })
  return quotas.length === 0 ? undefined : Math.max(1, Math.floor(Math.min(...quotas)))
}

/** Threads that compute when nothing else is said: the quota, never more than the cores this process may run on. */
export function defaultThreads(): number {
  return Math.min(quotaThreads() ?? Infinity, availableParallelism())
}

/** Folders that may hold a quota, from the process's own cgroup up; inside a container its own is mounted at the root. */
function cgroupFolders(selfCgroup: string): string[] {
  const folders = new Set<string>()
  for (const line of selfCgroup.split('\n')) {
    const [, controllers, path] = line.split(':')
    if (controllers === undefined || path === undefined) continue
    const unified = controllers === ''
    if (!unified && !controllers.split(',').includes('cpu')) continue
    for (const mount of unified ? ['/sys/fs/cgroup'] : ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup/cpu,cpuacct']) {
      for (let at = path.trim(); ; at = dirname(at)) {
        folders.add(join(mount, at))
        if (at === '/' || at === '.') break
      }
    }
  }
  return [...folders]
}

function quotaOf(folder: string, read: ReadText): number | undefined {
  const [quota, period] = read(join(folder, 'cpu.max'))?.trim().split(/\s+/) ?? [
    read(join(folder, 'cpu.cfs_quota_us')),
    read(join(folder, 'cpu.cfs_period_us')),
  ]
  const cpus = Number(quota) / Number(period)
  return cpus > 0 && Number.isFinite(cpus) ? cpus : undefined
}

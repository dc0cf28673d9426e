// The number of threads that a worker computes with: as many as the CPU quota of its cgroup allows,
// and at most one for each core that it may run on.

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
 * The whole CPUs that the quotas of this process's cgroup (v2 or v1) and of those above it allow,
 * at least 1; undefined without a quota. A fraction is rounded down, because more threads than the
 * quota allows are throttled, and a throttled rank holds up every other rank.
 */
export function quotaThreads(read: ReadText = readText): number | undefined {
  const quotas = cgroupFolders(read('/proc/self/cgroup') ?? '').flatMap(folder => {
    const quota = quotaOf(folder, read)
    return quota === undefined ? [] : [quota]
  })
  return quotas.length === 0 ? undefined : Math.max(1, Math.floor(Math.min(...quotas)))
}

/** Threads by default: the quota, but not more than the cores that this process may run on. */
export function defaultThreads(): number {
  return Math.min(quotaThreads() ?? Infinity, availableParallelism())
}

/**
 * Folders that may hold a quota, from the process's own cgroup up to the root. Inside a container,
 * its own cgroup is mounted at the root.
 */
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

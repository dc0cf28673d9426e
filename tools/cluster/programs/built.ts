// Programs for tests and benchmarks that no cluster needs, each built from its pinned module when first asked for.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, writeAtomically } from '../../cache.ts'
import { withLock } from '../../lock.ts'
import { compile, type Progress } from './binaries.ts'
import { buildKey, type ProgramName, programBuild } from './modules.ts'

/** The path of the program. */
export function builtProgram(name: ProgramName, onProgress: Progress = () => {}): Promise<string> {
  const build = programBuild(name)
  const key = buildKey([build.module], [build.ldflags, ...(build.tags === undefined ? [] : [build.tags])])
  const path = join(cacheRoot(), `${build.module}-${key}`, name)
  return once(path, temporary => compile(build, temporary, { label: `building ${name}`, onProgress }))
}

/** Makes a file of the cache unless it is there. */
export async function once(path: string, make: (temporary: string) => Promise<void> | void): Promise<string> {
  if (existsSync(path)) return path
  await withLock(path, async () => {
    if (!existsSync(path)) await writeAtomically(path, make)
  })
  return path
}

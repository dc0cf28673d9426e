// Programs that tests and benchmarks need but no cluster does, each built from its pinned module at
// the first call.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, writeAtomically } from '../../cache.ts'
import { withLock } from '../../lock.ts'
import { compile, type Progress } from './compile.ts'
import { buildKey, type ProgramName, programBuild } from './modules.ts'

/** The path of the program, which is built if it is not in the cache. */
export function builtProgram(name: ProgramName, onProgress: Progress = () => {}): Promise<string> {
  const build = programBuild(name)
  const key = buildKey([build.module], [build.ldflags, ...(build.tags === undefined ? [] : [build.tags])])
  const path = join(cacheRoot(), `${build.module}-${key}`, name)
  return once(path, temporary => compile(build, temporary, { label: `building ${name}`, onProgress }))
}

/** Makes a file of the cache unless it exists; returns its path. */
export async function once(path: string, make: (temporary: string) => Promise<void> | void): Promise<string> {
  if (existsSync(path)) return path
  await withLock(path, async () => {
    if (!existsSync(path)) await writeAtomically(path, make)
  })
  return path
}

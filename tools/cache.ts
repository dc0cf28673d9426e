// The folder that keeps results that take minutes to make, for all checkouts of this user.

import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

/** `$SCMOE_CACHE`, otherwise `$XDG_CACHE_HOME/scmoe`, otherwise `~/.cache/scmoe`. */
export function cacheRoot(env: NodeJS.ProcessEnv = process.env): string {
  if (env['SCMOE_CACHE']) return resolve(env['SCMOE_CACHE'])
  return join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'scmoe')
}

/**
 * Writes under a temporary name and renames, so that a file that exists under `path` is complete.
 */
export async function writeAtomically(path: string, write: (temporary: string) => Promise<void> | void): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`
  mkdirSync(dirname(path), { recursive: true })
  try {
    await write(temporary)
    renameSync(temporary, path)
  } finally {
    rmSync(temporary, { force: true })
  }
}

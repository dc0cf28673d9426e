// Where things that take minutes to make are kept between checkouts.

import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

/** `$SCMOE_CACHE`, else `$XDG_CACHE_HOME/scmoe`, else `~/.cache/scmoe`. */
export function cacheRoot(env: NodeJS.ProcessEnv = process.env): string {
  if (env['SCMOE_CACHE']) return resolve(env['SCMOE_CACHE'])
  return join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'scmoe')
}

/** Makes `path` under another name and renames it, so that a file that exists is a whole one. */
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

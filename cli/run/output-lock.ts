// Locks an output folder for one run, because two runs would overwrite each other's checkpoints.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { JobFileError } from '../job-file.ts'
import { causeOf } from '../sentence.ts'

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    // Another user's process may not be signalled, but it is there.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

/**
 * Locks the folder for this process and returns the function that unlocks it. A lock whose process
 * has ended is removed.
 */
export function lockOutput(folder: string): () => void {
  const path = join(folder, '.running')
  for (const lastTry of [false, true]) {
    try {
      writeFileSync(path, `${process.pid}\n`, { flag: 'wx' })
      return () => rmSync(path, { force: true })
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) {
        // On a full disk the file is there, and empty.
        rmSync(path, { force: true })
        throw new JobFileError(
          `the output folder ${folder} cannot be written (${causeOf(error)}): give another with --output`,
        )
      }
    }
    const pid = Number(readFileSync(path, 'utf8'))
    if (lastTry || (pid > 0 && isAlive(pid))) {
      throw new JobFileError(
        `another run, process ${pid}, writes to ${folder}: stop it, or give another folder with --output (if no such run exists, remove ${path})`,
      )
    }
    rmSync(path, { force: true })
  }
  throw new Error('unreachable: the last try returns or throws')
}

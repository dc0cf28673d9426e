// Writing into the output folder of a run.

import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'

/** Runs `act`, which writes `path`. Throws a `checkpoint` failure that names it. */
export function writing<T>(path: string, act: () => T): T {
  try {
    return act()
  } catch (error) {
    throw new WorkerFailure(
      'checkpoint',
      `${path} cannot be written: ${errnoText(error)}. Check the output folder's free space and permissions.`,
    )
  }
}

/** A file system that takes longer for a folder or a small file is taken for dead. */
const DEADLINE_MILLISECONDS = 60_000

/**
 * Makes a folder and those above it, which another rank may make at the same moment. Node's own
 * option `recursive` says ENOENT where the file system is read-only.
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await makeOne(path)
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT' || dirname(path) === path) throw error
    await makeFolder(dirname(path))
    await makeOne(path)
  }
}

async function makeOne(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST' || !(await stat(path)).isDirectory()) throw error
  }
}

/**
 * A file system that has not answered. The thread that asked it waits on, also when Node exits.
 */
export class Unanswered extends Error {}

/**
 * Throws `Unanswered` if `work` takes longer, as it does for ever on the volume of a server that is
 * gone.
 */
export async function inTime<T>(work: Promise<T>, milliseconds = DEADLINE_MILLISECONDS): Promise<T> {
  const timer = new AbortController()
  const late = sleep(milliseconds, undefined, { signal: timer.signal }).then(() => {
    throw new Unanswered(`ETIMEDOUT: there has been no answer for ${milliseconds / 1000} s`)
  })
  // The first to end decides; the other may fail later.
  late.catch(() => undefined)
  work.catch(() => undefined)
  try {
    return await Promise.race([work, late])
  } finally {
    timer.abort()
  }
}

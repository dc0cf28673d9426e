// Answers of a file system as failures that say whether another attempt can help.

import { setTimeout as sleep } from 'node:timers/promises'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'

/** Answers of a network file system or a device that is gone, perhaps for a while. */
const AWAY: ReadonlySet<unknown> = new Set([
  'EIO',
  'ESTALE',
  'ENOTCONN',
  'ETIMEDOUT',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ECONNRESET',
  'ECONNREFUSED',
  'ENODEV',
  'ENXIO',
  'EREMOTEIO',
])

/** `what` is a clause: "The data /x cannot be read". */
export function readFailure(what: string, error: unknown): WorkerFailure {
  const isAway = AWAY.has(errnoCode(error))
  const remedy = isAway
    ? 'The storage or its mount is gone or broken: repair it, and the next attempt reads on.'
    : 'Check spec.data and what is mounted there.'
  return new WorkerFailure(isAway ? 'dataUnavailable' : 'badData', `${what}: ${errnoText(error)}. ${remedy}`)
}

const ANSWER_SECONDS = 120

/** The result of `work`, unless it takes so long that nobody can be expected to answer any more. */
export async function answered<T>(work: Promise<T>, what: string, seconds = ANSWER_SECONDS): Promise<T> {
  const over = new AbortController()
  const limit = sleep(1000 * seconds, undefined, { signal: over.signal }).then(
    () => {
      throw new WorkerFailure(
        'dataUnavailable',
        `${what} has not been answered for ${seconds} s. The storage or its mount hangs: repair it, and the next attempt reads on.`,
      )
    },
    () => work,
  )
  try {
    return await Promise.race([work, limit])
  } finally {
    over.abort()
  }
}

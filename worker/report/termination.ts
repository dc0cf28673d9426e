// The last thing that a worker says: the record that Kubernetes keeps as the container's
// termination message.

import { existsSync, writeFileSync } from 'node:fs'
import type { Progress, TerminationRecord } from '../../crds/contract.ts'
import { failureRecord, type WorkerFailure } from '../failure.ts'

/** The file that Kubernetes reads. It exists only in a container. */
const DEFAULT_PATH = '/dev/termination-log'
const MOST_BYTES = 4096

/**
 * Writes the termination message to `path`, or to the default path, which is left alone where it
 * does not exist. Never throws: a failing worker must still end with its own exit code.
 */
export function writeTermination(
  path: string | undefined,
  ending: { progress?: Progress; failure?: WorkerFailure; rank: number },
): void {
  const { progress, failure, rank } = ending
  const record: TerminationRecord = {
    ...(progress && { progress }),
    ...(failure && { failure: failureRecord(failure, rank) }),
  }
  let message = JSON.stringify(record)
  // The contract allows 1024 characters of failure message, which may take 4096 bytes alone.
  for (let keep = 512; Buffer.byteLength(message) > MOST_BYTES && record.failure; keep /= 2) {
    record.failure.message = record.failure.message.slice(0, keep)
    message = JSON.stringify(record)
  }
  const target = path || DEFAULT_PATH
  try {
    if (target !== DEFAULT_PATH || existsSync(target)) writeFileSync(target, message)
  } catch {
    // The same record is in the log.
  }
}

// Keeps a command alive when its output cannot be written: nobody reads a pipe any more, the
// terminal is gone, or the disk is full.

import type { Writable } from 'node:stream'

/** Nobody can read what is written, so nobody misses it. */
const NOBODY_READS = new Set(['EPIPE', 'EIO', 'ECONNRESET', 'EBADF', 'ERR_STREAM_DESTROYED'])

export interface Outputs {
  stdout: Writable
  stderr: Writable
}

/**
 * Keeps the process alive when an output is lost; without this, Node ends it in the middle of its
 * work. Returns a function that gives the error of a standard output that somebody would have read,
 * such as a file on a full disk; undefined if there was none.
 */
export function surviveLostOutput({ stdout, stderr }: Outputs): () => Error | undefined {
  let lost: Error | undefined
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (!NOBODY_READS.has(error.code ?? '')) lost ??= error
  })
  stderr.on('error', () => undefined)
  return () => lost
}

/** Calls `end` once nobody reads the standard output; for commands that print without end. */
export function whenNobodyReads({ stdout }: Pick<Outputs, 'stdout'>, end: () => void): void {
  stdout.once('error', end)
}

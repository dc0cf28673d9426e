// Writes a worker's log lines. A pipe that nobody reads or a full disk costs lines of the log, and
// never the training.

import { writeSync } from 'node:fs'

/** How long a reader that is slow may hold the worker up for one line, in milliseconds. */
const PATIENCE = 1000
const PAUSE = 5

/** A destination for pino. A line that cannot be written is lost; the next one is tried again. */
export function logOutput(fd: number): { write(line: string): void } {
  return { write: line => writeLine(fd, Buffer.from(line)) }
}

function writeLine(fd: number, line: Buffer): void {
  const deadline = performance.now() + PATIENCE
  let done = 0
  while (done < line.length) {
    try {
      done += writeSync(fd, line, done)
    } catch (error) {
      // A pipe that does not block is full; its reader may be about to read on.
      const isFull = error instanceof Error && 'code' in error && error.code === 'EAGAIN'
      if (!isFull || performance.now() > deadline) return
      pause()
    }
  }
}

const pause = () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE)

/** The fields of a log line, with as many digits as a reader needs. losses.jsonl has them all. */
export function logFields(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, rounded(value)]))
}

function rounded(value: unknown): unknown {
  if (typeof value === 'number') return Number.isInteger(value) ? value : Number(value.toPrecision(6))
  if (Array.isArray(value)) return value.map(rounded)
  const isPlain = typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
  return isPlain ? logFields({ ...value }) : value
}

// The error that a worker ends with. Its reason is a key of EXIT and says what happens next; its
// text says what to do.

import type { z } from 'zod'
import { EXIT, type Failure } from '../crds/contract.ts'
import { EngineError, type EngineErrorCode } from './engine-error.ts'

export type Reason = Exclude<keyof typeof EXIT, 'ok'>

export class WorkerFailure extends Error {
  readonly reason: Reason
  readonly op: string | undefined
  readonly peer: number | undefined
  constructor(
    reason: Reason,
    message: string,
    where: { op?: string | undefined; peer?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, { cause: where.cause })
    this.name = 'WorkerFailure'
    this.reason = reason
    this.op = where.op
    this.peer = where.peer
  }
}

const REASON_OF_ENGINE: Record<EngineErrorCode, Reason> = {
  ADDON_MISSING: 'badConfig',
  BAD_PROGRAM: 'internal',
  OUT_OF_MEMORY: 'outOfMemory',
  PEER_LOST: 'peerLost',
  PEER_TIMEOUT: 'peerLost',
  BAD_PEER: 'peerLost',
  LISTEN_FAILED: 'portInUse',
  DEVICE_MISSING: 'deviceMissing',
  DEVICE_FAILED: 'deviceFailed',
  ABORTED: 'terminated',
  INTERNAL: 'internal',
}

/** Any thrown value as a failure with a reason. */
export function asFailure(error: unknown): WorkerFailure {
  if (error instanceof WorkerFailure) return error
  if (error instanceof EngineError) {
    return new WorkerFailure(REASON_OF_ENGINE[error.code], error.message, { op: error.op, peer: error.peer })
  }
  if (error instanceof Error) return new WorkerFailure('internal', error.stack ?? error.message)
  return new WorkerFailure('internal', String(error))
}

/** The record for the termination message, cut to the lengths that the contract allows. */
export function failureRecord(failure: WorkerFailure, rank: number): Failure {
  return {
    rank,
    reason: failure.reason,
    ...(failure.op === undefined ? {} : { op: failure.op.slice(0, 128) }),
    ...(failure.peer === undefined ? {} : { peer: failure.peer }),
    message: failure.message.slice(0, 1024),
  }
}

/** `ENOSPC: no space left on device` for a system error, its message for any other. */
export function errnoText(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  if (code === undefined || !error.message.startsWith(`${code}: `)) return error.message
  // Node appends the system call and its paths. The callers name them in a better way.
  return error.message.replace(/, \w+( '.*)?$/, '')
}

/** The `code` of a Node system error, if it has one. */
export function errnoCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** A line for each wrong field, e.g. `spec.training.steps is "ten": expected number …`. */
export function issuesText(error: z.ZodError, input: unknown, root: string): string {
  return error.issues
    .map(issue => {
      const field = [root, ...issue.path].join('.')
      let value = input
      for (const key of issue.path)
        value = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined
      const shown = value === undefined ? 'missing' : JSON.stringify(value).slice(0, 80)
      return issue.code === 'unrecognized_keys'
        ? `${field} has unknown fields ${issue.keys.join(', ')}: remove them or correct their spelling.`
        : `${field} is ${shown}: ${issue.message}.`
    })
    .join('\n')
}

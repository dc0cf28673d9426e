// Errors of the native engine.

const CODES = [
  'ADDON_MISSING',
  'BAD_PROGRAM',
  'OUT_OF_MEMORY',
  'PEER_LOST',
  'PEER_TIMEOUT',
  'BAD_PEER',
  'LISTEN_FAILED',
  'DEVICE_MISSING',
  'DEVICE_FAILED',
  'ABORTED',
  'INTERNAL',
] as const
export type EngineErrorCode = (typeof CODES)[number]

/** An error of the native engine, with the op and the peer that it concerns, if any. */
export class EngineError extends Error {
  readonly code: EngineErrorCode
  readonly op: string | undefined
  readonly peer: number | undefined
  constructor(code: EngineErrorCode, message: string, where: { op?: string; peer?: number } = {}) {
    super(message)
    this.name = 'EngineError'
    this.code = code
    this.op = where.op
    this.peer = where.peer
  }
}

/** Makes a call of the addon, and turns its error into an EngineError. */
export function translate<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw toEngineError(error)
  }
}

/** Like `translate`, for a call that returns a promise. */
export async function translateAsync<T>(call: () => T | Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    throw toEngineError(error)
  }
}

/** The addon's errors have `code`, `op` and `peer` as plain properties. Others stay as they are. */
function toEngineError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { code, op, peer } = error as Error & { code?: string; op?: string; peer?: number }
  const known = CODES.find(each => each === code)
  if (known === undefined) return error
  const message = op === undefined ? error.message : `op '${op}': ${error.message}`
  return new EngineError(known, message, { ...(op !== undefined && { op }), ...(peer !== undefined && { peer }) })
}

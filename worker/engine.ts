// The engine: the only loader of the native addon (build/native/scmoe.node, or SCMOE_ADDON). Plain data across the border, a promise out.

import type { Program } from './program/program.ts'

export interface EngineOptions {
  rank: number
  worldSize: number
  expertParallelSize: number
  /** Threads that compute, >= 1; one more thread communicates. */
  computeThreads: number
  /** Deadline of every collective; after it the run fails with `PEER_TIMEOUT` naming the rank that did not answer. */
  timeoutMilliseconds: number
}

export interface PeerAddress {
  host: string
  port: number
}

/** Microseconds from the start of the run, one entry per op of the loaded program, in its order. */
export interface RunTimes {
  start: Float64Array
  end: Float64Array
}

export type EngineErrorCode =
  | 'ADDON_MISSING'
  | 'BAD_PROGRAM'
  | 'OUT_OF_MEMORY'
  | 'PEER_LOST'
  | 'PEER_TIMEOUT'
  | 'BAD_PEER'
  | 'LISTEN_FAILED'
  | 'ABORTED'

/** What went wrong, in which op, with which peer; `worker/main.ts` maps `code` to an exit code. */
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

/** One rank's engine. Not re-entrant: one `run`, `allReduce` or `connect` at a time. */
export interface Engine {
  /** ISA and GEMM library chosen, e.g. `cpu-avx512, OpenBLAS SkylakeX, 1 thread`. */
  readonly description: string
  /** Opens the mesh's listening socket on all interfaces; port 0 = any free. */
  listen(port?: number): Promise<{ port: number }>
  /** Connects the full mesh (higher rank dials lower). `token` keeps strangers and older attempts out; garbage is dropped, not fatal. */
  connect(peers: readonly PeerAddress[], token: string): Promise<void>
  /** Uploads a program under its name, replacing one of that name. Persistent memory is allocated by the first load and kept. */
  load(program: Program): void
  run(name: string): Promise<RunTimes>
  /** A persistent buffer of a loaded program, without copy; valid until `close`. */
  view(buffer: string): Float32Array | Int32Array
  /** Small control-plane sum over all ranks, outside any program; the same bits on every rank. */
  allReduce(values: Float64Array): Promise<Float64Array>
  /** Makes a pending call fail with `ABORTED`; safe from a signal handler's callback. */
  abort(): void
  close(): void
}

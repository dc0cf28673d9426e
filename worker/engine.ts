// The engine: the only loader of the native addon (build/native/scmoe.node, or SCMOE_ADDON). Plain data across the border, a promise out.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'

import type { BackendName } from '../crds/ranks.ts'
import type { Program } from './program/program.ts'

/** What a GPU is driven with. */
export interface DeviceOptions {
  /** Which of the GPUs this process sees. */
  index: number
  /** Programs whose shapes are static run as one CUDA graph; false: op by op, which is slower and shows where an error is. */
  graphs: boolean
  /** Thread blocks that an NCCL collective may take from computation; 0: as NCCL likes. */
  maxCtas: number
  /** ncclConfig_t's CTAPolicy (0 default, 1 efficiency, 2 zero), from NCCL 2.27 on; -1: as NCCL likes. */
  ctaPolicy: number
  /** All-to-alls carry `capacity` rows for each expert: no host waits for counts, and programs with them are static too. */
  padded: boolean
}

const DEVICE_DEFAULTS: DeviceOptions = { index: 0, graphs: true, maxCtas: 0, ctaPolicy: -1, padded: false }

export interface EngineOptions {
  /** What computes; `cpu` where nothing is said. */
  backend?: BackendName
  device?: Partial<DeviceOptions>
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

/** Microseconds, one entry per op of the loaded program, in its order. */
export interface RunTimes {
  /** From the start of the run. */
  start: Float64Array
  end: Float64Array
  /** From the start of the run: when the last peer had come to a collective, >= start; of a compute op: start. */
  ready: Float64Array
  /** Processor time the op took of its queue's thread. Of a compute op it is one thread's, however many compute. */
  cpu: Float64Array
}

export type EngineErrorCode =
  | 'ADDON_MISSING'
  | 'BAD_PROGRAM'
  | 'OUT_OF_MEMORY'
  | 'PEER_LOST'
  | 'PEER_TIMEOUT'
  | 'BAD_PEER'
  | 'LISTEN_FAILED'
  | 'DEVICE_MISSING'
  | 'DEVICE_FAILED'
  | 'ABORTED'
  | 'INTERNAL'

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
  /** Backend and what it runs on, e.g. `cpu-avx512, 1 thread` or `cuda:0 (NVIDIA H100 80GB HBM3)`. */
  readonly description: string
  /** By collectives since the engine was made, headers included. */
  readonly bytesSent: number
  /** Opens the mesh's listening socket on all interfaces; port 0 = any free. */
  listen(port?: number): Promise<{ port: number }>
  /** Connects the full mesh (higher rank dials lower). `token` keeps strangers and older attempts out; garbage is dropped, not fatal. */
  connect(peers: readonly PeerAddress[], token: string): Promise<void>
  /** Uploads a program under its name, replacing one of that name. Persistent memory is allocated by the first load and kept. */
  load(program: Program): void
  /** Needs `connect` first where the program has collectives and the world other ranks. */
  run(name: string): Promise<RunTimes>
  /**
   * A persistent buffer of a loaded program as this process sees it; valid until `close`. On a GPU it is an image: what is written there reaches
   * programs with `upload`, what they wrote is there after `download`. On the CPU it is the buffer itself, and nothing moves.
   */
  view(buffer: string): Float32Array | Int32Array
  upload(buffers: readonly string[]): void
  download(buffers: readonly string[]): void
  /** Bytes that programs may still take. */
  availableMemory(): number
  /** Small control-plane sum over all ranks, outside any program; the same bits on every rank. */
  allReduce(values: Float64Array): Promise<Float64Array>
  /** Makes a pending call fail with `ABORTED`; safe from a signal handler's callback. */
  abort(): void
  close(): void
}

/** What the addon exports; its errors carry `code`, `op` and `peer` as plain properties. */
interface NativeEngine {
  readonly description: string
  readonly bytesSent: number
  listen(port: number): number
  connect(peers: readonly PeerAddress[], tokenDigest: Uint8Array): Promise<void>
  load(json: string): void
  run(name: string): Promise<RunTimes>
  view(buffer: string): Float32Array | Int32Array
  upload(buffers: readonly string[]): void
  download(buffers: readonly string[]): void
  availableMemory(): number
  allReduce(values: Float64Array): Promise<Float64Array>
  abort(): void
  close(): void
}

/** Flat, all given. */
type NativeOptions = Omit<EngineOptions, 'backend' | 'device'> & {
  backend: BackendName
  device: number
  graphs: number
  maxCtas: number
  ctaPolicy: number
  padded: number
}

/** Something a GPU needs: what it is and where, or in `missing` why it is not there and what to do. All empty: not looked for. */
interface Part {
  path: string
  text: string
  missing: string
}

/** What hardware this process finds. */
export interface Inspection {
  /** Backend of the CPU, e.g. `cpu-avx512`. */
  cpu: string
  driver: Part
  /** The CUDA backend, for the first GPU. */
  library: Part
  nccl: Part
  devices: { name: string; computeCapability: string; totalBytes: number; freeBytes: number }[]
}

interface Addon {
  inspect(): Inspection
  NativeEngine: new (options: NativeOptions) => NativeEngine
}

const addonPath = (): string => {
  const chosen = process.env['SCMOE_ADDON']
  return chosen ? resolve(chosen) : resolve(import.meta.dirname, '../build/native/scmoe.node')
}

/** Throws `ADDON_MISSING` with what to do. */
export function loadAddon(path: string = addonPath()): Addon {
  try {
    const addon: Addon = createRequire(import.meta.url)(path)
    return addon
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new EngineError(
      'ADDON_MISSING',
      `cannot load the native addon ${path}: ${reason}
Possible solutions:
 - build it: cmake -S worker/native -B build/native -G Ninja && ninja -C build/native
 - if it lies elsewhere, set SCMOE_ADDON to its path
 - if it was built on another system or for another CPU architecture, build it here
 - if a shared library is missing, install it`,
    )
  }
}

const CODES: ReadonlySet<string> = new Set<EngineErrorCode>([
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
])

const toEngineError = (error: unknown): unknown => {
  if (!(error instanceof Error)) return error
  const { code, op, peer } = error as Error & { code?: EngineErrorCode; op?: string; peer?: number }
  if (code === undefined || !CODES.has(code)) return error
  const where = op === undefined ? error.message : `op '${op}': ${error.message}`
  return new EngineError(code, where, { ...(op !== undefined && { op }), ...(peer !== undefined && { peer }) })
}

/** Calls made on a native object, its errors given their class. */
const translate = <T>(call: () => T): T => {
  try {
    return call()
  } catch (error) {
    throw toEngineError(error)
  }
}

const translateAsync = async <T>(call: () => T | Promise<T>): Promise<T> => {
  try {
    return await call()
  } catch (error) {
    throw toEngineError(error)
  }
}

class AddonEngine implements Engine {
  readonly #native: NativeEngine

  constructor(options: EngineOptions) {
    const { NativeEngine } = loadAddon()
    const { index, graphs, padded, ...nccl } = { ...DEVICE_DEFAULTS, ...options.device }
    const switches = { graphs: Number(graphs), padded: Number(padded) }
    const hardware = { backend: options.backend ?? 'cpu', device: index, ...switches, ...nccl }
    this.#native = translate(() => new NativeEngine({ ...options, ...hardware }))
  }

  get description(): string {
    return this.#native.description
  }

  get bytesSent(): number {
    return this.#native.bytesSent
  }

  async listen(port = 0): Promise<{ port: number }> {
    return { port: await translateAsync(() => this.#native.listen(port)) }
  }

  async connect(peers: readonly PeerAddress[], token: string): Promise<void> {
    const digest = createHash('sha256').update(token).digest()
    await translateAsync(() => this.#native.connect(peers, digest))
  }

  load(program: Program): void {
    translate(() => this.#native.load(JSON.stringify(program)))
  }

  async run(name: string): Promise<RunTimes> {
    return translateAsync(() => this.#native.run(name))
  }

  view(buffer: string): Float32Array | Int32Array {
    return translate(() => this.#native.view(buffer))
  }

  upload(buffers: readonly string[]): void {
    translate(() => this.#native.upload(buffers))
  }

  download(buffers: readonly string[]): void {
    translate(() => this.#native.download(buffers))
  }

  availableMemory(): number {
    return translate(() => this.#native.availableMemory())
  }

  async allReduce(values: Float64Array): Promise<Float64Array> {
    return translateAsync(() => this.#native.allReduce(values))
  }

  abort(): void {
    this.#native.abort()
  }

  close(): void {
    this.#native.close()
  }
}

/** Opens what a GPU needs, to say what is there. Throws `ADDON_MISSING`. */
export function inspectHardware(): Inspection {
  return loadAddon().inspect()
}

/** Throws `ADDON_MISSING`, `DEVICE_MISSING`, or a RangeError naming the option that is out of range. */
export function createEngine(options: EngineOptions): Engine {
  return new AddonEngine(options)
}

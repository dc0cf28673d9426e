// The engine as TypeScript sees it. This file alone loads the native addon
// (build/native/scmoe.node, or the file that SCMOE_ADDON names). Plain data goes in, and a promise
// comes out.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'

import type { BackendName } from '../crds/ranks.ts'
import { EngineError, translate, translateAsync } from './engine-error.ts'
import type { Program } from './program/program.ts'

/** How a GPU is driven. */
export interface DeviceOptions {
  /** Index of the GPU among those that this process sees. */
  index: number
  /**
   * Whether programs with static shapes run as one CUDA graph. Op by op is slower and shows where
   * an error is.
   */
  graphs: boolean
  /** Thread blocks that an NCCL collective may take from computation; 0: NCCL decides. */
  maxCtas: number
  /**
   * CTAPolicy of ncclConfig_t (0 default, 1 efficiency, 2 zero), from NCCL 2.27; -1: NCCL decides.
   */
  ctaPolicy: number
  /**
   * Whether all-to-alls carry `capacity` rows for each expert. Then no host waits for counts, and
   * the shapes of programs with all-to-alls are static too.
   */
  padded: boolean
}

const DEVICE_DEFAULTS: DeviceOptions = { index: 0, graphs: true, maxCtas: 0, ctaPolicy: -1, padded: false }

export interface EngineOptions {
  /** Default: `cpu`. */
  backend?: BackendName
  device?: Partial<DeviceOptions>
  rank: number
  worldSize: number
  expertParallelSize: number
  /** Number of threads that compute, >= 1. One more thread communicates. */
  computeThreads: number
  /**
   * Deadline of every collective. After it the run fails with `PEER_TIMEOUT`, which names the rank
   * that did not answer.
   */
  timeoutMilliseconds: number
}

export interface PeerAddress {
  host: string
  port: number
}

/** Times of a run in microseconds, one entry for each op of the loaded program, in its order. */
export interface RunTimes {
  /** Counted from the start of the run, like `end` and `ready`. */
  start: Float64Array
  end: Float64Array
  /** When the last peer had come to a collective, >= start. For a compute op it equals start. */
  ready: Float64Array
  /**
   * Processor time that the op took of its queue's thread; for a compute op, of one of the threads.
   */
  cpu: Float64Array
}

/** One rank's engine. Not re-entrant: one `run`, `allReduce` or `connect` at a time. */
export interface Engine {
  /** Backend and hardware, e.g. `cpu-avx512, 1 thread` or `cuda:0 (NVIDIA H100 80GB HBM3)`. */
  readonly description: string
  /** Bytes that collectives have sent since the engine was made, headers included. */
  readonly bytesSent: number
  /** Opens the mesh's listening socket on all interfaces. Port 0 means any free port. */
  listen(port?: number): Promise<{ port: number }>
  /**
   * Connects all ranks with each other; the higher rank dials the lower one. A connection without
   * `token`, such as one of an older attempt, is dropped and not fatal.
   */
  connect(peers: readonly PeerAddress[], token: string): Promise<void>
  /**
   * Loads a program, in place of an earlier one of the same name. The first load allocates the
   * persistent memory, which stays.
   */
  load(program: Program): void
  /** Runs a loaded program. If it has collectives, several ranks need `connect` first. */
  run(name: string): Promise<RunTimes>
  /**
   * A persistent buffer of a loaded program as this process sees it; valid until `close`. On the
   * CPU it is the buffer itself, and `upload` and `download` do nothing. On a GPU it is a copy:
   * `upload` sends it to the GPU, `download` fetches what programs wrote.
   */
  view(buffer: string): Float32Array | Int32Array
  upload(buffers: readonly string[]): void
  download(buffers: readonly string[]): void
  /** Bytes of memory that programs may still take. */
  availableMemory(): number
  /** The sum of a few values over all ranks, outside any program; the same bits on every rank. */
  allReduce(values: Float64Array): Promise<Float64Array>
  /** Makes a pending call fail with `ABORTED`. May be called while a call is pending. */
  abort(): void
  close(): void
}

/**
 * The class that the addon exports. Its errors have `code`, `op` and `peer` as plain properties.
 */
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

/** Options as the addon takes them: flat and complete. */
type NativeOptions = Omit<EngineOptions, 'backend' | 'device'> & {
  backend: BackendName
  device: number
  graphs: number
  maxCtas: number
  ctaPolicy: number
  padded: number
}

/**
 * A part that GPUs need: where it is and what it is, or in `missing` why it is not there and what
 * to do. All fields are empty if the part was not looked for.
 */
interface Part {
  path: string
  text: string
  missing: string
}

/** The hardware that this process finds. */
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

/** Loads the addon. Throws `ADDON_MISSING` with what to do. */
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

/** Looks for GPUs and for the parts that they need. Throws `ADDON_MISSING`. */
export function inspectHardware(): Inspection {
  return loadAddon().inspect()
}

/**
 * Throws `ADDON_MISSING`, `DEVICE_MISSING`, or a RangeError that names the option which is out of
 * range.
 */
export function createEngine(options: EngineOptions): Engine {
  return new AddonEngine(options)
}

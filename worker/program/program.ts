// The program: the work of one rank in one step, as data. TypeScript writes it once, and the native
// engine loads it once and runs it many times without calling back into JavaScript. Everything here
// is plain JSON; ops.ts says what each op means.

import type { OpName } from './ops.ts'

/** The ops of a queue run one after another. The two queues run beside each other. */
export type Queue = 'compute' | 'comm'

export type DType = 'f32' | 'i32' | 'bf16'

/** Bytes of one element. */
export const BYTES: Readonly<Record<DType, number>> = { f32: 4, i32: 4, bf16: 2 }

/**
 * Persistent buffers keep their place and contents between programs: parameters, gradients,
 * moments, inputs, results. Their layout depends only on the model and the rank. Transient buffers
 * live within one run and share memory as the memory plan allows.
 */
export type Arena = 'persistent' | 'transient'

/**
 * A named region of memory. A buffer of routed rows is filled only as far as the counts of a run
 * say.
 */
export interface Buffer {
  name: string
  dtype: DType
  elements: number
  arena: Arena
}

/** The part of the model that an op belongs to, for the scheduler. The engine never reads it. */
export interface Segment {
  /**
   * Index of the unit (`ModelConfig.blocksPerUnit` blocks, of which the last carries the MoE
   * layer), or -1 outside all units.
   */
  unit: number
  phase: 'forward' | 'backward' | 'update'
  part: Part
}

/**
 * The part of a unit that an op belongs to.
 * - The backbone, in the order in which its parts run: `dense` (blocks before the preceding one),
 *   attn0 and mlp (the preceding block), attn1 and shared (the block that carries the MoE layer).
 * - The MoE branch, in the order in which its parts run: gate, counts, encode, dispatch, experts,
 *   combine, decode.
 * - `current` is all of DGMoE's second branch, on the current representation.
 * - `wgrad` is expert weight gradients, `reduce` sums over ranks, and `other` lies outside the
 *   units.
 *
 * In the backward phase an op has the part of the forward op that it undoes. Ops that compute an
 * activation again have the part of the backward op that needs it.
 */
export type Part =
  | 'dense'
  | 'attn0'
  | 'mlp'
  | 'attn1'
  | 'shared'
  | 'gate'
  | 'counts'
  | 'encode'
  | 'dispatch'
  | 'experts'
  | 'combine'
  | 'decode'
  | 'current'
  | 'wgrad'
  | 'reduce'
  | 'other'

/** Attributes are flat: numbers, or words from the lists in op-attributes.ts. */
export type Attrs = Readonly<Record<string, number | string>>

/**
 * An op as emitted, with names of buffers in the order of its row. A buffer in both `inputs` and
 * `outputs` is updated in place.
 */
export interface Op {
  op: OpName
  /** Unique within a program, e.g. `unit0.forward.dispatch`; appears in traces and in errors. */
  label: string
  queue: Queue
  inputs: string[]
  outputs: string[]
  attrs: Attrs
  segment: Segment
  /**
   * The cost model's first guess: floating-point operations (compute), or bytes that this rank
   * sends (comm).
   */
  cost: number
}

/** A program before scheduling. The order of `ops` defines the numbers. */
export interface Emitted {
  name: string
  buffers: Buffer[]
  ops: Op[]
}

/**
 * An op after scheduling. `waits` are indices of ops on the other queue in the scheduled list; the
 * order within a queue is implied.
 */
export interface ScheduledOp extends Op {
  waits: number[]
}

/**
 * A program as `schedule` returns it: the same ops in the order in which the host issues them. Each
 * queue runs its own in that order.
 */
export interface Scheduled {
  name: string
  buffers: Buffer[]
  ops: ScheduledOp[]
}

/** A buffer with its offset in bytes from the start of its arena, a multiple of 64. */
export interface PlacedBuffer extends Buffer {
  offset: number
}

/**
 * The file that the engine loads. `inputs` and `outputs` are indices into `buffers`, `waits` into
 * `ops`.
 */
export interface Program {
  version: 1
  name: string
  rank: number
  worldSize: number
  expertParallelSize: number
  persistentBytes: number
  transientBytes: number
  buffers: PlacedBuffer[]
  ops: {
    op: OpName
    label: string
    queue: Queue
    inputs: number[]
    outputs: number[]
    attrs: Attrs
    waits: number[]
  }[]
}

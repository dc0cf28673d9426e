// The program: what one rank executes in one step, as data. Written once by TypeScript, uploaded once, run many times by the native engine
// with no call back into JavaScript. Everything here is plain JSON; `worker/program/ops.ts` says what each op means.

import type { OpName } from './ops.ts'

/** `compute` ops run one after another; `comm` ops run one after another; the two run beside each other. */
export type Queue = 'compute' | 'comm'

export type DType = 'f32' | 'i32' | 'bf16'

/** Of one element. */
export const BYTES: Readonly<Record<DType, number>> = { f32: 4, i32: 4, bf16: 2 }

/**
 * Persistent buffers keep their place and contents between programs (parameters, gradients, moments, inputs, results); their layout is a
 * function of the model and the rank alone. Transient buffers live within one run and share memory as the memory plan allows.
 */
export type Arena = 'persistent' | 'transient'

/** A named region. `elements` is the maximum; a buffer of routed rows is filled only as far as the counts say. */
export interface Buffer {
  name: string
  dtype: DType
  elements: number
  arena: Arena
}

/** What the scheduler needs to know about where an op belongs. Never read by the engine. */
export interface Segment {
  /** Index of the unit (`ModelConfig.blocksPerUnit` blocks, of which the last carries the MoE layer), or -1 for what lies outside. */
  unit: number
  phase: 'forward' | 'backward' | 'update'
  part: Part
}

/**
 * Backbone parts of a unit in the order in which they run: `dense` (blocks before the preceding one), attn0 and mlp (the preceding block), attn1
 * and shared (the block that carries the MoE layer). Parts of the MoE branch in the order in which they run: gate, counts, encode, dispatch,
 * experts, combine, decode. `current`: all of DGMoE's second branch, on the current representation. `wgrad` for expert weight gradients, `reduce`
 * for sums over ranks, `other` outside the units. In the backward phase an op has the part of the forward op it undoes; ops that compute
 * an activation again have the part of that backward.
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

/** Attributes are flat: numbers, or words from a closed set that the op table names. */
export type Attrs = Readonly<Record<string, number | string>>

/** An op as emitted: names of buffers, in the order the op table gives. A buffer both in `inputs` and `outputs` is updated in place. */
export interface Op {
  op: OpName
  /** Unique within a program, e.g. `unit0.forward.dispatch`; appears in traces and in errors. */
  label: string
  queue: Queue
  inputs: string[]
  outputs: string[]
  attrs: Attrs
  segment: Segment
  /** Floating-point operations (compute) or bytes this rank sends (comm); the cost model's first guess. */
  cost: number
}

/** Emitted, not yet scheduled: `ops` in the one order that defines the numbers. */
export interface Emitted {
  name: string
  buffers: Buffer[]
  ops: Op[]
}

/** An op after scheduling: `waits` are indices into the scheduled list, always on the other queue; order within a queue is implied. */
export interface ScheduledOp extends Op {
  waits: number[]
}

/** What `schedule` returns: the same ops in the order the host issues them; each queue runs its own in that order. */
export interface Scheduled {
  name: string
  buffers: Buffer[]
  ops: ScheduledOp[]
}

/** A buffer with its place, in bytes from the start of its arena; offsets are multiples of 64. */
export interface PlacedBuffer extends Buffer {
  offset: number
}

/** The file the engine loads. `inputs`, `outputs` are indices into `buffers`; `waits` are indices into `ops`. */
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

// The type of a row of the op table (ops.ts). Rows are plain data: TypeScript checks the emitter
// against them, and `npm run generate` writes the C++ table, the structs by which kernels name
// their buffers, and the list of compute ops from them.

import type { AttrName } from './op-attributes.ts'

/**
 * A number that is known when a program is loaded, in terms of the op's attributes. An array is a
 * product. `over` rounds down, `minus` stops at 0, and `given` is 1 if the op has the optional
 * buffer of that name, otherwise 0. `worldRanks` is the number of ranks in the world.
 */
export type Size =
  | number
  | AttrName
  | 'worldRanks'
  | readonly Size[]
  | { plus: readonly [Size, Size] }
  | { minus: readonly [Size, Size] }
  | { over: readonly [Size, Size] }
  | { least: readonly [Size, Size] }
  | { given: string }

/**
 * The fewest elements that a buffer may have.
 * - `routed`: the size of one routed row. How many rows there are, only the counts of a run say;
 *   the
 *   buffer must have room for as many as the op's other routed buffers (see `Routed`).
 * - `as`: the buffers of a list are exactly as many, and exactly as long, as those of the list
 *   named.
 * - `any`: the op uses the whole buffer, however long it is.
 */
export type Elements = Size | { routed: Size } | { as: string } | 'any'

export interface BufferSpec {
  name: string
  /**
   * `activation` is f32 or bf16, and all buffers of one op with this type have the same of the two:
   * activations, their gradients, and weights as products read them. `any` is every type.
   */
  type: 'f32' | 'i32' | 'activation' | 'any'
  elements: Elements
  /** May be left out. Optional buffers are given from the left: what is missing are the last. */
  optional?: true
  /** Given if the attribute has this value, and otherwise left out. */
  when?: { attr: AttrName; is: number }
  /** A list of any length. It is the only buffer on its side of the op. */
  repeated?: true
  /** The op adds to the output or updates it, so it reads the output too. */
  accumulate?: true
  /**
   * Bounds of the numbers in an i32 input by which the op finds elements of other buffers: each is
   * at least `from` and below `below`. The engine looks at them before the op runs.
   */
  values?: { from: number; below?: Size }
  /**
   * The inputs whose buffer the output may be, whole. Otherwise an output has no byte in common
   * with another buffer of its op.
   */
  mayBe?: readonly string[]
}

/** A demand on an attribute that depends on others. */
export type Rule = { attr: AttrName; multipleOf: Size } | { attr: AttrName; atMost: Size }

/**
 * An op on routed rows after dispatch. The i32 input `by` counts them; if it is optional and left
 * out, the op works on all `rows` and needs none of the attributes here. An op with the attributes
 * chunk and chunks touches only its chunk of each buffer of routed rows.
 *
 * Each buffer of routed rows must have room for as many rows as the largest of them has, but not
 * for more than experts * capacity, the most that can come. Between the two sides of an exchange,
 * of which one may have up to expertParallelSize times as many rows, that is the largest number of
 * rows divided by expertParallelSize.
 */
export interface Routed {
  by: string
  attrs: readonly AttrName[]
  rules: readonly Rule[]
}

export interface OpSpec {
  queue: 'compute' | 'comm'
  /** A comm op gathers counts, exchanges routed rows, or sums over ranks. */
  collective?: 'gather' | 'exchange' | 'sum'
  /** `shared`: outputs must be the inputs. `apart`: no output may be an input. */
  place?: 'shared' | 'apart'
  inputs: readonly BufferSpec[]
  outputs: readonly BufferSpec[]
  attrs: readonly AttrName[]
  routed?: Routed
  /**
   * The op finds the row of a choice by its inputs expert, slot and counts: the slot is below the
   * count of the expert, and no more rows are kept than `least(rows * topK, experts * capacity)`.
   */
  placed?: true
  rules?: readonly Rule[]
  /**
   * The first guess of the floating-point operations. `rows` of an op on routed rows are those that
   * a rank sends. Without it the guess follows from the size of the outputs (cost.ts).
   */
  work?: Size
}

/** All attributes that an op can have. */
export const attrsOf = ({ attrs, routed }: OpSpec): readonly AttrName[] => [...attrs, ...(routed?.attrs ?? [])]

/**
 * A size as a number. `value` knows attributes and `worldRanks`; `given`, whether a buffer is
 * there.
 */
export interface Known {
  value: (name: AttrName | 'worldRanks') => number
  given: (buffer: string) => boolean
}

export function sizeOf(size: Size, known: Known): number {
  const of = (each: Size) => sizeOf(each, known)
  const pair = ([a, b]: readonly [Size, Size]) => [of(a), of(b)] as const
  if (typeof size === 'number') return size
  if (typeof size === 'string') return known.value(size)
  if (isProduct(size)) return size.reduce<number>((product, each) => product * of(each), 1)
  if ('given' in size) return known.given(size.given) ? 1 : 0
  if ('least' in size) return Math.min(...pair(size.least))
  const [a, b] = pair('plus' in size ? size.plus : 'minus' in size ? size.minus : size.over)
  if ('plus' in size) return a + b
  return 'minus' in size ? Math.max(0, a - b) : Math.floor(a / b)
}

export const isProduct = (size: Size): size is readonly Size[] => Array.isArray(size)

/**
 * The row's buffers at the places of an op that has `count` of them; undefined if that is none of
 * the numbers which the row allows.
 */
export function given(
  specs: readonly BufferSpec[],
  count: number,
  attr: (name: AttrName) => unknown,
): readonly BufferSpec[] | undefined {
  const list = specs.find(({ repeated }) => repeated)
  if (list) return count > 0 ? Array.from({ length: count }, () => list) : undefined
  const possible = specs.filter(({ when }) => when === undefined || attr(when.attr) === when.is)
  const needed = possible.filter(({ optional }) => !optional).length
  if (count < needed || count > possible.length) return undefined
  let extra = count - needed
  return possible.filter(({ optional }) => !optional || extra-- > 0)
}

// Answers which buffers an op reads and writes, by its row of the op table. Dependencies, the
// memory plan and checks follow from it.

import { ATTRS, type AttrName } from './op-attributes.ts'
import { attrsOf, type BufferSpec, given, type OpSpec } from './op-spec.ts'
import { OPS } from './ops.ts'
import type { Op } from './program.ts'

type Shape = Pick<Op, 'op' | 'inputs' | 'outputs' | 'attrs'>
interface Sides {
  inputs: readonly BufferSpec[]
  outputs: readonly BufferSpec[]
}

/** Buffers whose contents matter to the op: inputs, and outputs that are added to or updated. */
export function reads(op: Op): string[] {
  const { outputs } = specsOf(op)
  const isAdded = (place: number) =>
    outputs[place]?.accumulate === true || (place === 0 && op.attrs['accumulate'] === 1)
  return [...op.inputs, ...op.outputs.filter((_, place) => isAdded(place))]
}

/** The collective that a comm op is, by its row; undefined for a compute op. */
export const collectiveOf = (op: Pick<Op, 'op'> | undefined): OpSpec['collective'] =>
  op === undefined ? undefined : OPS[op.op].collective

export const writes = (op: Op): readonly string[] => op.outputs

/**
 * The row's buffer at each place of an op; a side on which the op does not fit its row is empty.
 */
export function specsOf({ op, inputs, outputs, attrs }: Shape): Sides {
  const attr = (name: AttrName) => attrs[name]
  return {
    inputs: given(OPS[op].inputs, inputs.length, attr) ?? [],
    outputs: given(OPS[op].outputs, outputs.length, attr) ?? [],
  }
}

/** Whether the op works on routed rows after dispatch. An activation does if it is given counts. */
export const onRoutedRows = (op: Shape): boolean =>
  specsOf(op).inputs.some(({ name }) => name === OPS[op.op].routed?.by)

export const isRouted = ({ elements }: BufferSpec): boolean => typeof elements === 'object' && 'routed' in elements

/**
 * Buffers of routed rows of which the op touches only its chunk; undefined if it works on all rows.
 */
export function chunkOf(op: Op): { chunk: number; buffers: ReadonlySet<string> } | undefined {
  const chunk = op.attrs['chunk']
  if (typeof chunk !== 'number' || op.attrs['chunks'] === 1) return undefined
  const { inputs, outputs } = specsOf(op)
  const routed = (names: readonly string[], specs: readonly BufferSpec[]) =>
    names.filter((_, place) => {
      const spec = specs[place]
      return spec !== undefined && isRouted(spec)
    })
  return { chunk, buffers: new Set([...routed(op.inputs, inputs), ...routed(op.outputs, outputs)]) }
}

/** Describes how an op breaks its row of the op table; undefined if it fits. */
export function violation(op: Op): string | undefined {
  const spec = OPS[op.op]
  const known: readonly string[] = attrsOf(spec)
  const missing = requiredOf(op).filter(name => op.attrs[name] === undefined)
  const unknown = Object.keys(op.attrs).filter(name => !known.includes(name))
  if (op.queue !== spec.queue) return `runs on ${op.queue}, the table says ${spec.queue}`
  for (const side of ['inputs', 'outputs'] as const)
    if (given(spec[side], op[side].length, name => op.attrs[name]) === undefined)
      return `has ${op[side].length} ${side}, the table says ${spec[side].map(({ name }) => name).join(' ')}`
  if (missing.length > 0) return `lacks the attribute ${missing.join(', ')}`
  if (unknown.length > 0) return `has the unknown attribute ${unknown.join(', ')}`
  return undefined
}

/**
 * Attributes that the op must have: those without a default, and of routed rows only if it has
 * some.
 */
const requiredOf = (op: Op): readonly AttrName[] =>
  (onRoutedRows(op) ? attrsOf(OPS[op.op]) : OPS[op.op].attrs).filter(name => !('default' in ATTRS[name]))

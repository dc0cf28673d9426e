// What an op reads and writes, from the op table: the ground of dependencies, memory plan and checks.

import { OPS, type OpSpec } from './ops.ts'
import type { Op } from './program.ts'

/** Buffers whose contents matter to the op: inputs, and outputs that are added to or updated in place. */
export function reads(op: Op): string[] {
  return [...op.inputs, ...op.outputs.filter((_, i) => updates(op, i))]
}

export const writes = (op: Op): readonly string[] => op.outputs

function updates(op: Op, output: number): boolean {
  if (op.op === 'adamw') return true
  if (output === 0 && op.attrs['accumulate'] === 1) return true
  return OPS[op.op].outputs[output]?.includes('+=') ?? false
}

/** Of the op table's inputs or outputs: whether the buffer at this place is marked "*". */
export function isMarked(names: readonly string[], place: number): boolean {
  const last = names.at(-1)
  const name = names[place] ?? (last?.endsWith('...') ? last : undefined)
  return name?.includes('*') === true
}

/** Buffers of routed rows, marked "#", of which the op touches its chunk alone; undefined where it works on all rows. */
export function chunkOf(op: Op): { chunk: number; buffers: ReadonlySet<string> } | undefined {
  const chunk = op.attrs['chunk']
  if (typeof chunk !== 'number' || op.attrs['chunks'] === 1) return undefined
  const { inputs, outputs }: OpSpec = OPS[op.op]
  const routed = (names: readonly string[], specs: readonly string[]) =>
    names.filter((_, i) => specs[i]?.includes('#') === true)
  return { chunk, buffers: new Set([...routed(op.inputs, inputs), ...routed(op.outputs, outputs)]) }
}

/** What is wrong with an op by the op table, or undefined. */
export function violation(op: Op): string | undefined {
  const spec: OpSpec = OPS[op.op]
  const missing = spec.attrs.filter(name => op.attrs[name] === undefined)
  const unknown = Object.keys(op.attrs).filter(name => !spec.attrs.includes(name))
  if (op.queue !== spec.queue) return `runs on ${op.queue}, the table says ${spec.queue}`
  if (!countFits(spec.inputs, op.inputs.length))
    return `has ${op.inputs.length} inputs, the table says ${spec.inputs.join(' ')}`
  if (!countFits(spec.outputs, op.outputs.length))
    return `has ${op.outputs.length} outputs, the table says ${spec.outputs.join(' ')}`
  if (missing.length > 0) return `lacks the attribute ${missing.join(', ')}`
  if (unknown.length > 0) return `has the unknown attribute ${unknown.join(', ')}`
  return undefined
}

function countFits(names: readonly string[], count: number): boolean {
  if (names.some(name => name.endsWith('...'))) return count >= 1
  return count >= names.filter(name => !name.endsWith('?')).length && count <= names.length
}

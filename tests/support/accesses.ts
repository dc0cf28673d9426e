// The buffers that an op reads and writes, from the op table alone. Tests judge the scheduler by
// it, so it shares nothing with the scheduler.

import type { BufferSpec } from '../../worker/program/op-spec.ts'
import { OPS } from '../../worker/program/ops.ts'
import type { Op, Scheduled } from '../../worker/program/program.ts'

export interface Access {
  name: string
  reads: boolean
  writes: boolean
  /** The chunk of routed rows that is touched; undefined if all rows are. */
  chunk: number | undefined
}

export function accesses(op: Op): Access[] {
  const { inputs, outputs } = OPS[op.op]
  const chunk = Number(op.attrs['chunks'] ?? 1) > 1 ? Number(op.attrs['chunk']) : undefined
  // A list is alone on its side, and no op with an optional buffer before others has routed rows
  // there.
  const chunkOf = (spec: BufferSpec | undefined) =>
    typeof spec?.elements === 'object' && 'routed' in spec.elements ? chunk : undefined
  return [
    ...op.inputs.map((name, i) => ({ name, reads: true, writes: false, chunk: chunkOf(inputs[i]) })),
    ...op.outputs.map((name, i) => ({
      name,
      reads: outputs[i]?.accumulate === true || (i === 0 && op.attrs['accumulate'] === 1),
      writes: true,
      chunk: chunkOf(outputs[i]),
    })),
  ]
}

export const meet = (a: Access, b: Access) =>
  a.name === b.name && (a.chunk === undefined || b.chunk === undefined || a.chunk === b.chunk)

/** The label of the emitted op that a scheduled op is, or of which it is a chunk. */
export const emittedLabel = ({ label }: Pick<Op, 'label'>) => label.replace(/\.\d+of\d+$/, '')

export interface Placed {
  op: Op
  /** Index in the scheduled list. */
  at: number
}

/** The scheduled ops that each emitted op became, by its label. */
export function piecesOf({ ops }: Scheduled): Map<string, Placed[]> {
  return Map.groupBy(
    ops.map((op, at) => ({ op, at })),
    ({ op }) => emittedLabel(op),
  )
}

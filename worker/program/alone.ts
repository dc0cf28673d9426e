// One rank's program without the other ranks: what its compute ops take can be measured on a machine that holds this rank alone, in a world of
// any size. Rows that would arrive are stood in for by the rows that would leave, as many and as large; sums over ranks are left out.

import type { ModelConfig } from '../model.ts'
import { collectiveOf } from './effects.ts'
import type { Buffer, Emitted, Op, Scheduled } from './program.ts'

/** f32 [rows, 2] of ones, to be written before a run. */
export const ONES = 'alone.ones'

/**
 * Compute ops in emitted order, with the labels they have in the whole program; an all-to-all's label names the copy in its place. Buffers of
 * gathered counts become persistent: nothing but `balancedCounts` fills them.
 */
export function alone(emitted: Emitted): Scheduled {
  const elements = new Map(emitted.buffers.map(buffer => [buffer.name, buffer.elements]))
  const gathered = new Set(countBuffers(emitted))
  const exchanges = emitted.ops.filter(op => collectiveOf(op) === 'exchange')
  const rowsOf = ({ inputs, outputs, attrs }: Op) => {
    const [rows = '', out = ''] = [inputs[0], outputs[0]]
    return Math.floor(Math.min(elements.get(rows) ?? 0, elements.get(out) ?? 0) / Number(attrs['dim']))
  }
  const ones: Buffer = {
    name: ONES,
    dtype: 'f32',
    elements: 2 * Math.max(1, ...exchanges.map(rowsOf)),
    arena: 'persistent',
  }
  const ops = emitted.ops.flatMap(op => {
    if (collectiveOf(op) === 'exchange') {
      const inputs = [...op.inputs.slice(0, 1), ONES]
      const attrs = { rows: rowsOf(op), dim: Number(op.attrs['dim']) }
      return [{ ...op, op: 'scale_rows' as const, queue: 'compute' as const, inputs, attrs, waits: [] }]
    }
    return op.queue === 'comm' ? [] : [{ ...op, waits: [] }]
  })
  const buffers = emitted.buffers.map(buffer =>
    gathered.has(buffer.name) ? { ...buffer, arena: 'persistent' as const } : buffer,
  )
  return { name: emitted.name, buffers: [...buffers, ones], ops }
}

/** Names of the buffers [W, E] that `balancedCounts` fills. */
export const countBuffers = (emitted: Emitted): string[] =>
  emitted.ops.flatMap(op => (collectiveOf(op) === 'gather' ? op.outputs : []))

/** allCounts[q][e] where every rank sends as many rows to each expert, to a row; ranks differ in which expert gets it. */
export function balancedCounts({ batch, sequence, topK, experts, worldSize }: ModelConfig): Int32Array {
  const rows = batch * sequence * topK
  const upTo = (expert: number) => Math.floor((rows * expert) / experts)
  const counts = new Int32Array(worldSize * experts)
  for (let rank = 0; rank < worldSize; rank++) {
    for (let expert = 0; expert < experts; expert++)
      counts[rank * experts + ((expert + rank) % experts)] = upTo(expert + 1) - upTo(expert)
  }
  return counts
}

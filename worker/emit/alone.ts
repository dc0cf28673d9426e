// Makes a program that one rank can run without the others, so that its compute ops can be measured
// on a machine that holds only this rank of a world of any size. The rows that would arrive are
// replaced by those that would leave, which are as many and as large. Sums over ranks are left out.

import type { ModelConfig } from '../model/config.ts'
import { collectiveOf } from '../program/effects.ts'
import type { Buffer, Emitted, Op, Scheduled } from '../program/program.ts'

/** f32 [rows, 2]. It must be filled with ones before a run. */
export const ONES = 'alone.ones'

/**
 * The compute ops in emitted order, with the labels that they have in the whole program. A copy of
 * rows replaces each all-to-all and has its label. Buffers of gathered counts become persistent,
 * because no op fills them: `balancedCounts` does.
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

/**
 * allCounts[q][e] with equal loads: every rank sends each expert the same number of rows, give or
 * take one. Ranks differ in which experts get one more.
 */
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

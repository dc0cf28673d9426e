// Divides the routed rows of a program into chunks (docs/adr/0008). Every op that can work on a
// chunk becomes one op for each chunk: first all dispatches, then the experts chunk by chunk, then
// all combines. Weight gradients are not divided, so that their sums keep their order.

import type { Emitted, Op, Part } from '../program/program.ts'

export interface Split {
  ops: readonly Op[]
  /** For each op, the index of the emitted op that it is, or of which it is a chunk. */
  source: readonly number[]
}

/** Parts whose ops work on routed rows. */
const ROUTED: ReadonlySet<Part> = new Set<Part>(['dispatch', 'experts', 'combine', 'current'])

export function split({ ops }: Emitted, chunks: number): Split {
  const source: number[] = []
  const result: Op[] = []
  const push = (index: number, chunk?: number) => {
    const op = ops[index]
    if (!op) return
    source.push(index)
    result.push(chunk === undefined ? op : chunkOf(op, chunk, chunks))
  }
  for (const run of runs(ops)) {
    const isSplit = chunks > 1 && run.every(index => splits(ops[index]))
    if (!isSplit) for (const index of run) push(index)
    else if (ops[run[0] ?? 0]?.queue === 'comm') for (const index of run) each(chunks, chunk => push(index, chunk))
    else each(chunks, chunk => run.forEach(index => push(index, chunk)))
  }
  return { ops: result, source }
}

const each = (count: number, visit: (i: number) => void) => Array.from({ length: count }, (_, i) => visit(i))

const splits = (op: Op | undefined) =>
  op !== undefined && op.attrs['chunks'] === 1 && op.segment.unit >= 0 && ROUTED.has(op.segment.part)

/**
 * Indices of consecutive ops that are split together, because they have the same unit, phase, part
 * and queue.
 */
function runs(ops: readonly Op[]): number[][] {
  const found: number[][] = []
  let last = ''
  for (const [index, op] of ops.entries()) {
    const { unit, phase, part } = op.segment
    const key = splits(op) ? `${unit} ${phase} ${part} ${op.queue}` : ''
    if (key === '' || key !== last) found.push([])
    found.at(-1)?.push(index)
    last = key
  }
  return found
}

function chunkOf(op: Op, chunk: number, chunks: number): Op {
  return {
    ...op,
    label: `${op.label}.${chunk}of${chunks}`,
    attrs: { ...op.attrs, chunk, chunks },
    cost: op.cost / chunks,
  }
}

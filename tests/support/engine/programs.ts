// Makes small programs for the engine's tests. Buffers lie one after another in memory.

import { OPS, type OpName } from '../../../worker/program/ops.ts'
import { type Attrs, BYTES, type DType, type Program } from '../../../worker/program/program.ts'

export interface Shape {
  rank: number
  worldSize: number
  expertParallelSize: number
}

export interface OpText {
  op: OpName
  label: string
  inputs: readonly string[]
  outputs: readonly string[]
  attrs?: Attrs
  /** Labels of the ops to wait for. */
  after?: readonly string[]
}

/** The number of elements: of f32, or of the named type. */
type Extent = number | { i32: number } | { bf16: number }

function typed(extent: Extent): { dtype: DType; elements: number } {
  if (typeof extent === 'number') return { dtype: 'f32', elements: extent }
  return 'i32' in extent ? { dtype: 'i32', elements: extent.i32 } : { dtype: 'bf16', elements: extent.bf16 }
}

const indexOf = (names: string[], wanted: string): number => {
  const found = names.indexOf(wanted)
  if (found < 0) throw new Error(`no '${wanted}'`)
  return found
}

/** A program whose buffers are all persistent, so that a test can read them. */
export function makeProgram(
  name: string,
  shape: Shape,
  buffers: Record<string, Extent>,
  ops: readonly OpText[],
): Program {
  const placed: Program['buffers'] = []
  let offset = 0
  for (const [buffer, extent] of Object.entries(buffers)) {
    const { dtype, elements } = typed(extent)
    placed.push({ name: buffer, dtype, elements, arena: 'persistent', offset })
    offset = Math.ceil((offset + elements * BYTES[dtype]) / 64) * 64
  }
  const names = Object.keys(buffers)
  const labels = ops.map(({ label }) => label)
  return {
    version: 1,
    name,
    ...shape,
    persistentBytes: offset,
    transientBytes: 0,
    buffers: placed,
    ops: ops.map(({ op, label, inputs, outputs, attrs = {}, after = [] }) => ({
      op,
      label,
      queue: OPS[op].queue,
      inputs: inputs.map(input => indexOf(names, input)),
      outputs: outputs.map(output => indexOf(names, output)),
      attrs,
      waits: after.map(earlier => indexOf(labels, earlier)),
    })),
  }
}

export const shapeOf = (rank: number, worldSize: number, expertParallelSize = worldSize): Shape => ({
  rank,
  worldSize,
  expertParallelSize,
})

/** A program of one op that looks up rows of a table of 8; its tokens are persistent. */
export const lookUp = (): Program =>
  makeProgram('look up', shapeOf(0, 1), { tokens: { i32: 5 }, table: 8 * 3, rows: 4 * 3 }, [
    {
      op: 'embedding',
      label: 'rows of tokens',
      inputs: ['tokens', 'table'],
      outputs: ['rows'],
      attrs: { batch: 1, sequence: 4, dim: 3, vocabulary: 8 },
    },
  ])

/** An op that writes the sum of the two inputs to the output. */
export const add = (label: string, inputs: [string, string], output: string, elements: number) => ({
  op: 'add' as const,
  label,
  inputs,
  outputs: [output],
  attrs: { rows: 1, dim: elements },
})

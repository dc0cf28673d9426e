// Small programs for the engine's tests, placed in memory one buffer after another.

import { OPS, type OpName } from '../../../worker/program/ops.ts'
import type { Attrs, DType, Program, Queue } from '../../../worker/program/program.ts'

export interface Shape {
  rank: number
  worldSize: number
  expertParallelSize: number
}

interface OpText {
  op: OpName
  label: string
  inputs: string[]
  outputs: string[]
  attrs?: Attrs
  /** Labels. */
  after?: string[]
}

/** `buffers`: name to elements; a name ending in `:i32` is of that type; all are persistent so that tests can read them. */
export function makeProgram(name: string, shape: Shape, buffers: Record<string, number>, ops: OpText[]): Program {
  const place: Program['buffers'] = []
  let offset = 0
  for (const [key, elements] of Object.entries(buffers)) {
    const [bare = key, dtype = 'f32'] = key.split(':')
    place.push({ name: bare, dtype: dtype as DType, elements, arena: 'persistent', offset })
    offset = Math.ceil((offset + elements * 4) / 64) * 64
  }
  const index = (list: { name: string }[], wanted: string): number => {
    const found = list.findIndex(({ name }) => name === wanted)
    if (found < 0) throw new Error(`no '${wanted}'`)
    return found
  }
  const labels = ops.map(({ label }) => ({ name: label }))
  return {
    version: 1,
    name,
    ...shape,
    persistentBytes: offset,
    transientBytes: 0,
    buffers: place,
    ops: ops.map(({ op, label, inputs, outputs, attrs = {}, after = [] }) => ({
      op,
      label,
      queue: OPS[op].queue as Queue,
      inputs: inputs.map(input => index(place, input)),
      outputs: outputs.map(output => index(place, output)),
      attrs,
      waits: after.map(label => index(labels, label)),
    })),
  }
}

export const shapeOf = (rank: number, worldSize: number, expertParallelSize = worldSize): Shape => ({
  rank,
  worldSize,
  expertParallelSize,
})

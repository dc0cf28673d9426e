// The last step: buffers get their places in memory, and names become indices. The result is the
// file that the engine loads.

import type { ModelConfig } from '../model/config.ts'
import type { Program, Scheduled } from '../program/program.ts'
import { planMemory } from './memory.ts'

export function assemble(
  scheduled: Scheduled,
  config: Pick<ModelConfig, 'worldSize' | 'expertParallelSize'>,
  rank: number,
): Program {
  const { buffers, persistentBytes, transientBytes } = planMemory(scheduled)
  const indices = new Map(buffers.map((buffer, index) => [buffer.name, index]))
  const indexOf = (name: string) => {
    const index = indices.get(name)
    if (index === undefined)
      throw new Error(`an op of program ${scheduled.name} names the buffer ${name}, which is not declared`)
    return index
  }
  return {
    version: 1,
    name: scheduled.name,
    rank,
    worldSize: config.worldSize,
    expertParallelSize: config.expertParallelSize,
    persistentBytes,
    transientBytes,
    buffers,
    ops: scheduled.ops.map(({ op, label, queue, inputs, outputs, attrs, waits }) => ({
      op,
      label,
      queue,
      inputs: inputs.map(indexOf),
      outputs: outputs.map(indexOf),
      attrs,
      waits,
    })),
  }
}

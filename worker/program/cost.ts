// The first guess of what an op costs, before anything was measured: floating-point operations of a
// compute op, bytes that this rank sends in a comm op.

import type { ModelConfig } from '../model/config.ts'
import { onRoutedRows } from './effects.ts'
import type { AttrName } from './op-attributes.ts'
import { type OpSpec, sizeOf } from './op-spec.ts'
import { ELEMENTWISE } from './op-words.ts'
import { OPS } from './ops.ts'
import { type Attrs, BYTES, type DType, type Op } from './program.ts'

/** The type of the buffers that the op table calls activations. */
export const activationType = ({ precision }: ModelConfig): DType => (precision === 'bfloat16' ? 'bf16' : 'f32')

/**
 * The most rows that a rank sends: N*k, or fewer if the capacity bounds them. With evenly loaded
 * experts these are also the rows that it really sends and works on.
 */
export function rowsSent(config: ModelConfig): number {
  const rows = config.batch * config.sequence * config.topK
  return Math.min(rows, config.experts * config.capacity)
}

/**
 * The most rows that a rank can hold after dispatch: every rank of the EP group sends all it may to
 * the L local experts.
 */
export function rowsReceived(config: ModelConfig): number {
  const { expertParallelSize: size, experts, capacity, batch, sequence, topK } = config
  return size * Math.min(batch * sequence * topK, (experts / size) * capacity)
}

/** `elements` is the size of all outputs together. */
export function cost(op: Omit<Op, 'cost' | 'label' | 'segment'>, elements: number, config: ModelConfig): number {
  const { work, collective } = OPS[op.op]
  if (collective !== undefined) return bytesSent(collective, op.attrs, elements, config)
  if (work === undefined) return ELEMENTWISE * elements
  const isRouted = onRoutedRows(op)
  const value = (name: AttrName | 'worldRanks') => {
    if (name === 'worldRanks') return config.worldSize
    return name === 'rows' && isRouted ? rowsSent(config) : Number(op.attrs[name] ?? 0)
  }
  return sizeOf(work, { value, given: () => false })
}

function bytesSent(
  collective: NonNullable<OpSpec['collective']>,
  attrs: Attrs,
  elements: number,
  config: ModelConfig,
): number {
  if (collective === 'gather') return BYTES.i32 * config.experts * (config.worldSize - 1)
  // Reduce-scatter and all-gather: every element leaves twice, except for the share that stays.
  if (collective === 'sum') return 2 * BYTES.f32 * elements * (1 - 1 / groupSize(String(attrs['group']), config))
  const rowBytes = BYTES[activationType(config)] * Number(attrs['dim'])
  return rowBytes * rowsSent(config) * (1 - 1 / config.expertParallelSize)
}

export function groupSize(group: string, config: ModelConfig): number {
  if (group === 'ep') return config.expertParallelSize
  return group === 'edp' ? config.worldSize / config.expertParallelSize : config.worldSize
}

// First guess of what an op costs, before anything was measured: floating-point operations for compute, bytes sent for communication.

import type { ModelConfig } from '../model.ts'
import type { OpName } from './ops.ts'
import { type Attrs, BYTES, type DType } from './program.ts'

/** Elementwise work is bound by memory; one element costs about as much as this many operations of a matrix product. */
const ELEMENTWISE = 16

/** Of what the op table marks with `*`. */
export const activationType = ({ precision }: ModelConfig): DType => (precision === 'bfloat16' ? 'bf16' : 'f32')

/** Most rows a rank sends: N*k, or fewer where capacity bounds them. With evenly loaded experts also the rows it sends and works on. */
export function rowsSent(config: ModelConfig): number {
  const rows = config.batch * config.sequence * config.topK
  return Math.min(rows, config.experts * config.capacity)
}

/** Most rows a rank can hold after dispatch: every rank of the EP group sends all it may to the L local experts. */
export function rowsReceived(config: ModelConfig): number {
  const { expertParallelSize: size, experts, capacity, batch, sequence, topK } = config
  return size * Math.min(batch * sequence * topK, (experts / size) * capacity)
}

interface Sizes {
  rows: number
  in: number
  out: number
  dim: number
  batch: number
  sequence: number
  experts: number
}
type Guess = (a: Sizes, config: ModelConfig) => number

const matrixProduct: Guess = a => 2 * a.rows * a.in * a.out
const groupedProduct: Guess = (a, config) => 2 * rowsSent(config) * a.in * a.out
const routerProduct = (a: Sizes) => 2 * a.rows * a.dim * a.experts
const elementwise: Guess = (a, config) =>
  ELEMENTWISE * Math.min(a.rows, Math.max(rowsSent(config), config.batch * config.sequence)) * a.dim

const GUESS: Partial<Record<OpName, Guess>> = {
  linear: matrixProduct,
  linear_dgrad: matrixProduct,
  linear_wgrad: matrixProduct,
  grouped_linear: groupedProduct,
  grouped_linear_dgrad: groupedProduct,
  grouped_linear_wgrad: groupedProduct,
  // Half of the scores are masked.
  attention: a => 2 * a.batch * a.sequence ** 2 * a.dim,
  attention_backward: a => 5 * a.batch * a.sequence ** 2 * a.dim,
  router: routerProduct,
  router_backward: a => 2 * routerProduct(a),
  gelu: elementwise,
  gelu_backward: elementwise,
  swiglu: elementwise,
  swiglu_backward: elementwise,
  all_to_all: (a, config) =>
    BYTES[activationType(config)] * rowsSent(config) * a.dim * (1 - 1 / config.expertParallelSize),
  all_gather_counts: (_, config) => 4 * config.experts * (config.worldSize - 1),
}

function sizes(attrs: Attrs): Sizes {
  const size = (name: keyof Sizes) => Number(attrs[name] ?? 0)
  const [rows, dim, batch, sequence, experts] = [
    size('rows'),
    size('dim'),
    size('batch'),
    size('sequence'),
    size('experts'),
  ]
  return { rows, in: size('in'), out: size('out'), dim, batch, sequence, experts }
}

/** `elements`: size of all outputs together. */
export function cost(op: OpName, attrs: Attrs, elements: number, config: ModelConfig): number {
  // Reduce-scatter and all-gather: every element leaves twice, but for the share that stays.
  if (op === 'all_reduce') return 8 * elements * (1 - 1 / groupSize(String(attrs['group']), config))
  return GUESS[op]?.(sizes(attrs), config) ?? ELEMENTWISE * elements
}

export function groupSize(group: string, config: ModelConfig): number {
  if (group === 'ep') return config.expertParallelSize
  return group === 'edp' ? config.worldSize / config.expertParallelSize : config.worldSize
}

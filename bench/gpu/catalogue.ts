// The cases that bench/gpu/run.sh executes, by name. Pure.

import { BYTES, type DType } from '../../worker/program/program.ts'
import { assemble, type Choice } from '../../worker/schedule/schedule.ts'
import {
  type Case,
  LAYERS,
  type Layer,
  layerCase,
  OVERLAP,
  type Precision,
  type Sizes,
  SMALL,
  schedulesOf,
  stepCase,
  TINY,
  WIDE,
} from './cases.ts'

const SEQUENTIAL: Choice = { strategy: 'Sequential' }

export interface Subjects {
  tiny: Sizes
  models: Readonly<Record<string, Sizes>>
  layers: readonly Layer[]
  overlap: Sizes
  /** The side of the square matrices whose product is the peak, and the number of bytes copied. */
  peak: { side: number; bytes: number }
}

const half = (sizes: Sizes): Sizes => ({ ...sizes, precision: 'bfloat16' })

const SUBJECTS: Subjects = {
  tiny: TINY,
  models: {
    'gpt2-moe-small': SMALL,
    'gpt2-moe-small-bf16': half(SMALL),
    d2048: WIDE,
    'd2048-bf16': half(WIDE),
  },
  layers: LAYERS,
  overlap: OVERLAP,
  peak: { side: 8192, bytes: 2 ** 30 },
}

/**
 * Cases by name. A row of the results has the name of its case; a case that runs in several ways
 * adds a suffix after a dash.
 */
export function catalogue(subjects: Subjects = SUBJECTS): ReadonlyMap<string, Case> {
  const cases = new Map([['peak', peakCase(subjects.peak, 'float32')]])
  cases.set('tiny', stepCase('tiny', subjects.tiny, SEQUENTIAL))
  if (hasHalf(subjects)) {
    cases.set('peak-bf16', peakCase(subjects.peak, 'bfloat16'))
    cases.set('tiny-bf16', stepCase('tiny', half(subjects.tiny), SEQUENTIAL))
  }
  for (const rank of [0, 1])
    cases.set(`two-ranks-${rank}`, stepCase('tiny', { ...subjects.tiny, ranks: 2 }, SEQUENTIAL, rank))
  for (const [name, sizes] of Object.entries(subjects.models))
    cases.set(`model-${name}`, stepCase(name, sizes, SEQUENTIAL))
  for (const [index, layer] of subjects.layers.entries()) {
    cases.set(`layer-${index}-forward`, layerCase(layer, false))
    cases.set(`layer-${index}-backward`, layerCase(layer, true))
  }
  for (const [index, choice] of schedulesOf(subjects.overlap).entries())
    cases.set(`overlap-${index}`, stepCase('overlap', subjects.overlap, choice))
  return cases
}

/** Whether any subject uses bfloat16. A device without bfloat16 gets subjects in float32 only. */
const hasHalf = ({ models, layers, overlap }: Subjects) =>
  [...Object.values(models), ...layers, overlap].some(({ precision }) => precision === 'bfloat16')

const TIMES = 8

/**
 * Measures the peaks of the device: square products, and copies within its memory, which an
 * all-to-all of a rank to itself makes.
 */
function peakCase({ side, bytes }: Subjects['peak'], precision: Precision): Case {
  const dtype: DType = precision === 'bfloat16' ? 'bf16' : 'f32'
  const segment = { unit: -1, phase: 'forward', part: 'other' } as const
  const dim = 1024
  const elements = bytes / BYTES[dtype]
  const rows = elements / dim
  const alone = { experts: 1, capacity: rows, rank: 0, expertParallelSize: 1, chunk: 0, chunks: 1 }
  const times = (make: (i: number) => Case['emitted']['ops'][number]) =>
    Array.from({ length: TIMES }, (_, i) => make(i))
  const ops = [
    ...times(i => ({
      op: 'linear',
      label: `product${i}`,
      queue: 'compute',
      inputs: ['x', 'w'],
      outputs: ['y'],
      attrs: { rows: side, in: side, out: side, bias: 0 },
      segment,
      cost: 2 * side ** 3,
    })),
    ...times(i => ({
      op: 'all_to_all',
      label: `copy${i}`,
      queue: 'comm',
      inputs: ['from', 'counts'],
      outputs: ['to'],
      attrs: { direction: 'dispatch', dim, ...alone },
      segment,
      cost: 0,
    })),
  ]
  const square = { dtype, elements: side * side, arena: 'persistent' } as const
  const long = { dtype, elements, arena: 'persistent' } as const
  const emitted: Case['emitted'] = {
    name: 'peak',
    buffers: [
      ...['x', 'w', 'y'].map(name => ({ name, ...square })),
      ...['from', 'to'].map(name => ({ name, ...long })),
      { name: 'counts', dtype: 'i32', elements: 1, arena: 'persistent' },
    ],
    ops,
  }
  // The copies wait for the products, so that they do not share the memory's bandwidth.
  const scheduled = { ...emitted, ops: ops.map((op, i) => ({ ...op, waits: i === TIMES ? [TIMES - 1] : [] })) }
  return {
    file: {
      title: `peak: product of ${side} x ${side}, ${precision}, copy of ${bytes} bytes`,
      programs: [assemble(scheduled, { worldSize: 1, expertParallelSize: 1 }, 0)],
      step: ['peak'],
      fills: [
        { buffer: 'x', kind: 'normal', std: 1, seed: 1, first: 0 },
        { buffer: 'w', kind: 'normal', std: 1, seed: 2, first: 0 },
        { buffer: 'counts', kind: 'constant', value: rows },
      ],
      report: ['y'],
      parts: {},
      tokens: 0,
      flops: TIMES * 2 * side ** 3,
    },
    precision,
    emitted,
    scheduled,
  }
}

// The fastest matrix product of this machine with the engine's own kernel, with which the speed of
// a step is compared.

import { elementsOf } from '../../worker/model/tensors.ts'
import type { Emitted, Op, Program } from '../../worker/program/program.ts'
import type { Rank, World } from './world.ts'

const SIDES = { rows: 1024, in: 1024, out: 1024 }
const PRODUCTS_PER_RUN = 20
const ENGINE = 'peak'
const WORK = 2 * elementsOf(Object.values(SIDES))

/** A program of products y = x w^T in sequence. */
function peakProgram(): Program {
  const sizes = { x: SIDES.rows * SIDES.in, w: SIDES.in * SIDES.out, y: SIDES.rows * SIDES.out }
  let offset = 0
  const buffers = Object.entries(sizes).map(([name, elements]) => {
    const placed = { name, elements, dtype: 'f32', arena: 'persistent', offset } as const
    offset += 4 * elements
    return placed
  })
  const attrs = { ...SIDES, bias: 0 }
  const ops = Array.from({ length: PRODUCTS_PER_RUN }, (_, i) => {
    return { op: 'linear' as const, label: `product${i}`, queue: 'compute' as const, attrs, waits: [] }
  }).map(op => Object.assign(op, { inputs: [0, 1], outputs: [2] }))
  const alone = { rank: 0, worldSize: 1, expertParallelSize: 1 }
  return { version: 1, name: ENGINE, ...alone, persistentBytes: offset, transientBytes: 0, buffers, ops }
}

/** Opens the engines that `measurePeak` runs. */
export async function openPeak({ ranks }: World): Promise<void> {
  const open = async (rank: Rank) => {
    await rank.call('open', ENGINE, { rank: 0, worldSize: 1, expertParallelSize: 1 })
    await rank.call('load', ENGINE, [peakProgram()])
    for (const name of ['x', 'w']) await rank.call('write', ENGINE, name, new Float32Array(1024 * 1024).fill(0.5))
  }
  await Promise.all(ranks.map(open))
}

/**
 * Floating-point operations per second of the fastest product on each rank, as a mean over ranks,
 * which all compute at once.
 */
export async function measurePeak(world: World): Promise<number> {
  const results = await world.each(rank => rank.call('run', ENGINE, [ENGINE]))
  const rates = results.map(({ runs: [times] }) => {
    const took = times?.end.map((end, op) => end - (times.start[op] ?? 0)) ?? []
    return (WORK / Math.min(...took)) * 1e6
  })
  return rates.reduce((sum, rate) => sum + rate, 0) / rates.length
}

const isProduct = ({ op, queue }: Op) => queue === 'compute' && /linear|attention/.test(op)

/**
 * Floating-point operations of the matrix products and attention of one rank: 2 * rows * in * out
 * per product, with rows as routed to evenly loaded experts; half of attention, which is not
 * masked.
 */
export const workOf = (programs: readonly Emitted[]): number =>
  programs.flatMap(({ ops }) => ops.filter(isProduct)).reduce((sum, { cost }) => sum + cost, 0)

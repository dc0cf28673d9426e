// The peak speeds of a device, measured in the same run as everything else, and the share of them
// that each kind of op reaches. Pure.

import { BYTES, type Emitted, type Op } from '../../worker/program/program.ts'
import type { Found } from './rows.ts'

export interface Peaks {
  /** Operations per second of the fastest matrix product. */
  flopsPerSecond: number
  /** Bytes read and written per second by the fastest copy within the device's memory. */
  bytesPerSecond: number
}

/** All ops of one name in a step, together. */
export interface OpShare {
  op: string
  count: number
  microseconds: number
  /** Share of the time of all compute ops. */
  shareOfTime: number
  /**
   * For products and attention, operations per second divided by the peak. For other ops, bytes of
   * all their buffers per second divided by those of the fastest copy. Null without a peak, and for
   * collectives.
   */
  shareOfPeak: number | null
}

export const isProduct = ({ op }: Pick<Op, 'op'>) => /linear|attention/.test(op)

/** Bytes read and written. A buffer that is both input and output counts twice. */
function bytesOf({ inputs, outputs }: Op, { buffers }: Emitted): number {
  const bytes = new Map(buffers.map(({ name, elements, dtype }) => [name, BYTES[dtype] * elements]))
  return [...inputs, ...outputs].reduce((sum, name) => sum + (bytes.get(name) ?? 0), 0)
}

const isCopy = ({ label }: Op) => label.startsWith('copy')

/** Null if a figure is neither given nor measured. */
export function peaksOf(row: Found | undefined, given: Partial<Peaks>): Peaks | null {
  const best = (isOne: (op: Op) => boolean, work: (op: Op) => number) =>
    row?.subject.scheduled.ops.reduce((most, op, i) => {
      const seconds = ((row.spans.end[i] ?? 0) - (row.spans.start[i] ?? 0)) * 1e-6
      return isOne(op) && seconds > 0 ? Math.max(most, work(op) / seconds) : most
    }, 0)
  const flopsPerSecond = given.flopsPerSecond ?? best(isProduct, op => op.cost)
  const rows = row?.subject.emitted
  const bytesPerSecond =
    given.bytesPerSecond ?? best(isCopy, op => (rows ? bytesOf({ ...op, inputs: op.inputs.slice(0, 1) }, rows) : 0))
  return flopsPerSecond && bytesPerSecond ? { flopsPerSecond, bytesPerSecond } : null
}

export function sharesOf({ subject, spans }: Found, peaks: Peaks | null): OpShare[] {
  const { emitted, scheduled } = subject
  const kinds = Map.groupBy(scheduled.ops.entries(), ([, { op }]) => op)
  const timeOf = (index: number) => (spans.end[index] ?? 0) - (spans.start[index] ?? 0)
  const total = scheduled.ops.reduce((sum, { queue }, i) => sum + (queue === 'compute' ? timeOf(i) : 0), 0)
  const shares = [...kinds].map(([op, all]): OpShare => {
    const microseconds = all.reduce((sum, [index]) => sum + timeOf(index), 0)
    const isComm = all.some(([, { queue }]) => queue === 'comm')
    const work = (one: Op) => {
      if (!peaks || isComm) return 0
      return isProduct(one) ? one.cost / peaks.flopsPerSecond : bytesOf(one, emitted) / peaks.bytesPerSecond
    }
    const ideal = all.reduce((sum, [, one]) => sum + work(one), 0) * 1e6
    return {
      op,
      count: all.length,
      microseconds,
      shareOfTime: microseconds / total,
      shareOfPeak: peaks && !isComm && microseconds > 0 ? ideal / microseconds : null,
    }
  })
  return shares.toSorted((a, b) => b.microseconds - a.microseconds)
}

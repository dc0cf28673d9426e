// The dependencies between ops, from what they read and write in the emitted order: read after
// write, write after read, write after write. Any order that respects them gives the same numbers,
// bit for bit. Chunks of a buffer of routed rows are independent of each other.

import { chunkOf, reads, writes } from '../program/effects.ts'
import type { Op } from '../program/program.ts'

/** For each op, the indices of the earlier ops that it must follow. */
export function dependencies(ops: readonly Op[]): number[][] {
  const regions = regionsOf(ops)
  const writer = new Map<string, number>()
  const readers = new Map<string, number[]>()
  return ops.map((op, index) => {
    const before = new Set<number>()
    const read = reads(op).flatMap(name => regions(op, name))
    const written = writes(op).flatMap(name => regions(op, name))
    for (const region of [...read, ...written]) {
      const last = writer.get(region)
      if (last !== undefined) before.add(last)
    }
    for (const region of written) for (const reader of readers.get(region) ?? []) before.add(reader)
    for (const region of read) {
      const list = readers.get(region)
      if (list) list.push(index)
      else readers.set(region, [index])
    }
    for (const region of written) {
      writer.set(region, index)
      readers.delete(region)
    }
    before.delete(index)
    return [...before]
  })
}

/**
 * The regions of a buffer that an op touches: its own chunk, or all chunks. A buffer that no op
 * touches in chunks is one region.
 */
function regionsOf(ops: readonly Op[]): (op: Op, name: string) => string[] {
  const counts = new Map<string, number>()
  for (const op of ops)
    for (const name of chunkOf(op)?.buffers ?? [])
      counts.set(name, Math.max(counts.get(name) ?? 1, Number(op.attrs['chunks'])))
  return (op, name) => {
    const count = counts.get(name)
    if (count === undefined) return [name]
    const own = chunkOf(op)
    if (own?.buffers.has(name)) return [`${name}#${own.chunk}`]
    return Array.from({ length: count }, (_, chunk) => `${name}#${chunk}`)
  }
}

/**
 * The targets, and the ops of `range` that some target needs, directly or not. `range` is in the
 * emitted order.
 */
export function ancestors(
  before: readonly number[][],
  range: readonly number[],
  targets: ReadonlySet<number>,
): Set<number> {
  const needed = new Set(targets)
  for (const index of range.toReversed())
    if (needed.has(index)) for (const earlier of before[index] ?? []) needed.add(earlier)
  return needed
}

/**
 * The sources, and the ops of `range` that need some source, directly or not. `range` is in the
 * emitted order.
 */
export function descendants(
  before: readonly number[][],
  range: readonly number[],
  sources: ReadonlySet<number>,
): Set<number> {
  const reached = new Set(sources)
  for (const index of range) if (before[index]?.some(earlier => reached.has(earlier))) reached.add(index)
  return reached
}

// Which op needs which, from what each reads and writes in the emitted order: read after write, write after read, write after write.
// Any order that respects these gives the same numbers, bit by bit. Of a buffer of routed rows each chunk counts by itself.

import { chunkOf, reads, writes } from '../program/effects.ts'
import type { Op } from '../program/program.ts'

/** For every op the earlier ops it must follow. */
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

/** What of a buffer an op touches: its chunk, or all of them. A buffer that no op touches by chunks is one region. */
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

/** Ops of `range` that some op of `targets` needs, directly or not, and the targets. Dependencies point backwards. */
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

/** Ops of `range` that need some op of `sources`, and the sources. */
export function descendants(
  before: readonly number[][],
  range: readonly number[],
  sources: ReadonlySet<number>,
): Set<number> {
  const reached = new Set(sources)
  for (const index of range) if (before[index]?.some(earlier => reached.has(earlier))) reached.add(index)
  return reached
}

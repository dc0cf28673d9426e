// Which op needs which, from what each reads and writes in the emitted order: read after write, write after read, write after write.
// Any order that respects these gives the same numbers, bit by bit.

import { reads, writes } from '../program/effects.ts'
import type { Op } from '../program/program.ts'

/** For every op the earlier ops it must follow. */
export function dependencies(ops: readonly Op[]): number[][] {
  const writer = new Map<string, number>()
  const readers = new Map<string, number[]>()
  return ops.map((op, index) => {
    const before = new Set<number>()
    for (const name of reads(op)) {
      const last = writer.get(name)
      if (last !== undefined) before.add(last)
    }
    for (const name of writes(op)) {
      const last = writer.get(name)
      if (last !== undefined) before.add(last)
      for (const reader of readers.get(name) ?? []) before.add(reader)
    }
    for (const name of reads(op)) readers.set(name, [...(readers.get(name) ?? []), index])
    for (const name of writes(op)) {
      writer.set(name, index)
      readers.set(name, [])
    }
    before.delete(index)
    return [...before]
  })
}

/** Ops of `range` that some op of `targets` needs, directly or not. Dependencies point backwards. */
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

/** Ops of `range` that need some op of `sources`. */
export function descendants(
  before: readonly number[][],
  range: readonly number[],
  sources: ReadonlySet<number>,
): Set<number> {
  const reached = new Set(sources)
  for (const index of range) if (before[index]?.some(earlier => reached.has(earlier))) reached.add(index)
  return reached
}

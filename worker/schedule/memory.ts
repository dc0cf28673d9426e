// Gives every buffer its place in memory. Persistent buffers lie in the order of their declaration.
// Two transient buffers may share memory if one is finished before the other begins in any timing,
// because of the order within the queues and the waits between them.

import { writes } from '../program/effects.ts'
import { type Buffer, BYTES, type PlacedBuffer, type Scheduled, type ScheduledOp } from '../program/program.ts'

export const ALIGNMENT = 64

export interface MemoryPlan {
  buffers: PlacedBuffer[]
  persistentBytes: number
  transientBytes: number
}

/** The number of ops at the head of each queue that have certainly ended before an op starts. */
interface Clock {
  compute: number
  comm: number
}

/**
 * The time in which a buffer is in use. `last` has the position of the last access on each queue;
 * -1 if there is none.
 */
interface Lifetime {
  buffer: Buffer
  bytes: number
  begin: Clock
  last: Clock
}

interface Placed extends Lifetime {
  offset: number
}

export function planMemory(scheduled: Scheduled): MemoryPlan {
  const places = new Map<string, number>()
  let persistentBytes = 0
  for (const buffer of scheduled.buffers) {
    if (buffer.arena !== 'persistent') continue
    places.set(buffer.name, persistentBytes)
    persistentBytes += size(buffer)
  }
  const placed = place(lifetimes(scheduled))
  let transientBytes = 0
  for (const { buffer, offset, bytes } of placed) {
    places.set(buffer.name, offset)
    transientBytes = Math.max(transientBytes, offset + bytes)
  }
  // A transient buffer that no op touches takes no memory.
  const buffers = scheduled.buffers.map(buffer => ({ ...buffer, offset: places.get(buffer.name) ?? 0 }))
  return { buffers, persistentBytes, transientBytes }
}

const size = (buffer: Buffer) => Math.ceil((buffer.elements * BYTES[buffer.dtype]) / ALIGNMENT) * ALIGNMENT

/**
 * Places the largest buffer first, each into the lowest gap between the buffers that it may not
 * overlap.
 */
function place(list: Lifetime[]): Placed[] {
  const placed: Placed[] = []
  for (const life of list.toSorted((a, b) => b.bytes - a.bytes)) {
    const neighbours = placed.filter(other => overlap(life, other))
    let offset = 0
    for (const other of neighbours.toSorted((a, b) => a.offset - b.offset)) {
      if (other.offset >= offset + life.bytes) break
      offset = Math.max(offset, other.offset + other.bytes)
    }
    placed.push({ ...life, offset })
  }
  return placed
}

const endsBefore = (a: Lifetime, b: Lifetime) => a.last.compute < b.begin.compute && a.last.comm < b.begin.comm
const overlap = (a: Lifetime, b: Lifetime) => !endsBefore(a, b) && !endsBefore(b, a)

function lifetimes(scheduled: Scheduled): Lifetime[] {
  const transient = new Map(scheduled.buffers.filter(b => b.arena === 'transient').map(b => [b.name, b]))
  const lives = new Map<string, Lifetime>()
  const known = clocks(scheduled.ops)
  for (const { op, position, clock } of known) {
    for (const name of [...op.inputs, ...writes(op)]) {
      const buffer = transient.get(name)
      if (!buffer) continue
      let life = lives.get(name)
      if (!life) {
        life = { buffer, bytes: size(buffer), begin: clock, last: { compute: -1, comm: -1 } }
        lives.set(name, life)
      }
      life.last[op.queue] = position
    }
  }
  return [...lives.values()]
}

function clocks(ops: readonly ScheduledOp[]): { op: ScheduledOp; position: number; clock: Clock }[] {
  const seen: Clock = { compute: 0, comm: 0 }
  const latest: Record<ScheduledOp['queue'], Clock> = {
    compute: { compute: 0, comm: 0 },
    comm: { compute: 0, comm: 0 },
  }
  const positions: number[] = []
  return ops.map(op => {
    const { queue } = op
    const other = queue === 'compute' ? 'comm' : 'compute'
    const position = seen[queue]++
    positions.push(position)
    const waited = op.waits.map(index => (positions[index] ?? -1) + 1)
    const clock = { compute: position, comm: position }
    clock[other] = Math.max(latest[queue][other], ...waited)
    latest[queue] = clock
    return { op, position, clock }
  })
}

// The two queues before they are merged: the order of the ops in each, and what an op needs from
// the other queue.

import { collectiveOf } from '../program/effects.ts'
import type { Emitted, Op, Scheduled, ScheduledOp } from '../program/program.ts'
import type { Graph } from './order.ts'
import type { Choice } from './types.ts'

/**
 * Whether experts wait for this communication, which is not so for sums of gradients and losses.
 */
export const isExchange = (op: Pick<Op, 'op'> | undefined) => {
  const collective = collectiveOf(op)
  return collective === 'exchange' || collective === 'gather'
}

/**
 * Queues as indices of ops of a graph. If `computeNeeded` of the exchanges does not decrease along
 * `comm`, no queue waits for ever.
 */
export interface Queues {
  compute: readonly number[]
  comm: readonly number[]
  /**
   * For each comm op, the last position in `compute` that it needs, directly or through other comm
   * ops; -1 if none.
   */
  computeNeeded: Int32Array
  /** For each compute op, the comm ops that it needs. */
  commNeeded: readonly number[][]
}

/**
 * The queues without sums over ranks, which `insertReductions` adds. Exchanges are in the order in
 * which compute makes them possible, and ties in the emitted order. So the order is the same on
 * every rank, because all ranks emit the same ops.
 */
export function exchangeQueues({ ops, before }: Graph, choice: Choice, compute: readonly number[]): Queues {
  const positions = new Int32Array(ops.length)
  for (const [position, index] of compute.entries()) positions[index] = position
  const computeNeeded = new Int32Array(ops.length).fill(-1)
  const commNeeded: number[][] = ops.map(() => [])
  let awaited: number[] = []
  let last = -1
  for (const [index, op] of ops.entries()) {
    if (op.queue === 'comm') {
      const sequential = choice.strategy === 'Sequential' && isExchange(op)
      const needed = (before[index] ?? []).map(earlier => {
        return ops[earlier]?.queue === 'compute' ? (positions[earlier] ?? -1) : (computeNeeded[earlier] ?? -1)
      })
      computeNeeded[index] = Math.max(sequential ? last : -1, ...needed)
      if (sequential) awaited.push(index)
    } else {
      const needed = (before[index] ?? []).filter(earlier => ops[earlier]?.queue === 'comm')
      commNeeded[index]?.push(...needed, ...awaited)
      awaited = []
      last = positions[index] ?? -1
      const late = before[index]?.find(earlier => (positions[earlier] ?? 0) > last)
      if (late !== undefined) throw new Error(`${op.label} would run before ${ops[late]?.label}, which it needs`)
    }
  }
  const needed = (index: number) => computeNeeded[index] ?? -1
  const comm = [...ops.keys()]
    .filter(index => isExchange(ops[index]))
    .toSorted((a, b) => needed(a) - needed(b) || a - b)
  return { compute, comm, computeNeeded, commNeeded }
}

/**
 * Merges the queues into one list, in the order in which the host issues ops. Communication is
 * issued as soon as everything that it needs was issued. Each op waits for at most one op, the
 * latest that it needs.
 */
export function merge({ name, buffers }: Emitted, { ops }: Graph, queues: Queues): Scheduled {
  const { compute, comm, computeNeeded, commNeeded } = queues
  const commPosition = new Map(comm.map((index, position) => [index, position]))
  const merged: ScheduledOp[] = []
  const computeAt: number[] = []
  const commAt: number[] = []
  const known = { compute: -1, comm: -1 }
  const push = (index: number, queue: 'compute' | 'comm', needed: number) => {
    const op = ops[index]
    if (!op) throw new Error(`there is no op ${index} in program ${name}`)
    const other = queue === 'compute' ? commAt : computeAt
    const at = other[needed]
    if (needed >= 0 && at === undefined) throw new Error(`${op.label} would wait for what is issued after it`)
    merged.push({ ...op, waits: needed > known[queue] && at !== undefined ? [at] : [] })
    known[queue] = Math.max(known[queue], needed)
    const own = queue === 'compute' ? computeAt : commAt
    own.push(merged.length - 1)
  }
  const issueComm = (limit: number) => {
    for (let head = comm[commAt.length]; head !== undefined; head = comm[commAt.length]) {
      const needed = computeNeeded[head] ?? -1
      if (needed >= limit) return
      push(head, 'comm', needed)
    }
  }
  for (const [position, index] of compute.entries()) {
    issueComm(position)
    push(index, 'compute', Math.max(-1, ...(commNeeded[index] ?? []).map(needed => commPosition.get(needed) ?? -1)))
  }
  issueComm(compute.length)
  return { name, buffers, ops: merged }
}

// Two queues before they are merged: what runs in which order, and what each op needs from the other queue.

import type { Emitted, Op, Scheduled, ScheduledOp } from '../program/program.ts'
import type { Graph } from './order.ts'
import type { Choice, Times } from './types.ts'

/** Communication the experts wait for, as opposed to sums of gradients and losses. */
export const isExchange = (op: Pick<Op, 'op'>) => op.op === 'all_to_all' || op.op === 'all_gather_counts'

export interface Queues {
  compute: readonly number[]
  comm: readonly number[]
  /** Per op: for a comm op, the compute position it needs last (-1: none). */
  computeNeeded: Int32Array
  /** Per op: for a compute op, the comm ops it needs. */
  commNeeded: readonly number[][]
}

/** Without the ops of part `reduce`, which `insertReductions` adds. Exchanges keep the emitted order, the same on every rank. */
export function exchangeQueues({ ops, before }: Graph, choice: Choice, compute: readonly number[]): Queues {
  const positions = new Int32Array(ops.length)
  for (const [position, index] of compute.entries()) positions[index] = position
  const computeNeeded = new Int32Array(ops.length).fill(-1)
  const commNeeded: number[][] = ops.map(() => [])
  let exchange: number | undefined
  for (const [index, op] of ops.entries()) {
    for (const earlier of before[index] ?? []) {
      if (op.queue === 'comm' && ops[earlier]?.queue === 'compute')
        computeNeeded[index] = Math.max(computeNeeded[index] ?? -1, positions[earlier] ?? -1)
      if (op.queue === 'compute' && ops[earlier]?.queue === 'comm') commNeeded[index]?.push(earlier)
    }
    if (isExchange(op)) exchange = index
    if (op.queue !== 'compute' || exchange === undefined) continue
    if (choice.strategy === 'Sequential') commNeeded[index]?.push(exchange)
    exchange = undefined
  }
  const comm = ops.flatMap((op, index) => (isExchange(op) ? [index] : []))
  return { compute, comm, computeNeeded, commNeeded }
}

/** Microseconds until both queues are empty. Ops that are on neither queue yet are waited for by nobody. */
export function simulate({ compute, comm, computeNeeded, commNeeded }: Queues, times: Times): number {
  const commEnd = new Map<number, number>()
  const planned = new Set(comm)
  const computeEnd = new Float64Array(compute.length)
  let computeClock = 0
  let commClock = 0
  let next = 0
  for (const [position, index] of compute.entries()) {
    // Everything the comm queue can start with what compute has finished so far.
    while (next < comm.length) {
      const head = comm[next] ?? 0
      const needed = computeNeeded[head] ?? -1
      if (needed >= position) break
      commClock = Math.max(commClock, needed < 0 ? 0 : (computeEnd[needed] ?? 0)) + (times[head] ?? 0)
      commEnd.set(head, commClock)
      next++
    }
    for (const needed of commNeeded[index] ?? [])
      if (planned.has(needed)) computeClock = Math.max(computeClock, commEnd.get(needed) ?? Number.POSITIVE_INFINITY)
    computeClock += times[index] ?? 0
    computeEnd[position] = computeClock
  }
  for (; next < comm.length; next++) {
    const head = comm[next] ?? 0
    const needed = computeNeeded[head] ?? -1
    commClock = Math.max(commClock, needed < 0 ? 0 : (computeEnd[needed] ?? 0)) + (times[head] ?? 0)
  }
  return Math.max(computeClock, commClock)
}

/** One list in the order the host issues: communication as soon as what it needs was issued. Each op waits for at most one op, the latest. */
export function merge(emitted: Emitted, queues: Queues): Scheduled {
  const { compute, comm, computeNeeded, commNeeded } = queues
  const commPosition = new Map(comm.map((index, position) => [index, position]))
  const merged: ScheduledOp[] = []
  const computeAt: number[] = []
  const commAt: number[] = []
  const known = { compute: -1, comm: -1 }
  const push = (index: number, queue: 'compute' | 'comm', needed: number) => {
    const op = emitted.ops[index]
    if (!op) throw new Error(`there is no op ${index} in program ${emitted.name}`)
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
  return { name: emitted.name, buffers: emitted.buffers, ops: merged }
}

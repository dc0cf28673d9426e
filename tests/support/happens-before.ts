// The order of ops that a schedule guarantees in any timing: op a ends before op b starts if b is
// later on a's queue, or waits for a, or both over a chain of ops. Tests judge the memory planner
// by it, so it shares nothing with the planner.

import type { Scheduled, ScheduledOp } from '../../worker/program/program.ts'

export type HappensBefore = (a: number, b: number) => boolean

export function happensBefore({ ops }: Scheduled): HappensBefore {
  const size = ops.length
  const reaches = ops.map(() => new Uint8Array(size))
  const last: Record<string, number> = {}
  for (const [index, { queue, waits }] of ops.entries()) {
    const row = reaches[index]
    const direct = [...waits, ...(last[queue] === undefined ? [] : [last[queue]])]
    for (const earlier of direct) {
      if (row) row[earlier] = 1
      for (let i = 0; i < size; i++) if (row && reaches[earlier]?.[i] === 1) row[i] = 1
    }
    last[queue] = index
  }
  return (a, b) => reaches[b]?.[a] === 1
}

/**
 * Runs the queues of all ranks. `picks` chooses the next op among those that may start. Returns the
 * ops in the order in which they ended. A collective ends on all ranks when all have come to it. If
 * ranks have come to different collectives, none of them ever ends.
 */
export function runTogether(
  ranks: readonly Scheduled[],
  picks: readonly number[],
): { rank: number; op: ScheduledOp }[] {
  const ran: { rank: number; op: ScheduledOp }[] = []
  const states = ranks.map(({ ops }) => {
    const of = (queue: string) => ops.flatMap((op, index) => (op.queue === queue ? [index] : []))
    return { ops, done: new Set<number>(), compute: of('compute'), comm: of('comm') }
  })
  const headOf = (rank: number, queue: 'compute' | 'comm') => {
    const { ops, done, ...queues } = states[rank] ?? { ops: [], done: new Set(), compute: [], comm: [] }
    const op = ops[queues[queue][0] ?? -1]
    return op?.waits.every(wait => done.has(wait)) ? op : undefined
  }
  const end = (rank: number, queue: 'compute' | 'comm') => {
    const op = headOf(rank, queue)
    const index = states[rank]?.[queue].shift()
    if (!op || index === undefined) return
    states[rank]?.done.add(index)
    ran.push({ rank, op })
  }
  /**
   * Runs the next compute op of rank `turn` or, if `turn` is the number of ranks, the next
   * collective.
   */
  const step = (turn: number): boolean => {
    const before = ran.length
    if (turn < ranks.length && headOf(turn, 'compute')) end(turn, 'compute')
    const heads = states.map((_, rank) => headOf(rank, 'comm')?.label)
    const together = heads[0] !== undefined && heads.every(label => label === heads[0])
    if (turn === ranks.length && together) for (const rank of states.keys()) end(rank, 'comm')
    return ran.length > before
  }
  const turns = [...ranks.keys(), ranks.length]
  for (let next = 0; ; next++) {
    const first = (picks[next % picks.length] ?? 0) % turns.length
    if (![...turns.slice(first), ...turns.slice(0, first)].some(step)) return ran
  }
}

// What is certain about a schedule whatever the timing: op a ends before op b starts if b is later on a's queue, or waits for it, or both hold
// over a chain. By reachability over plain edges; shares nothing with the planner it judges.

import type { Scheduled } from '../../worker/program/program.ts'

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

/** Runs both queues with the next op picked at random among those that may start. Returns the labels in the order in which they ran. */
export function runAtRandom({ ops }: Scheduled, picks: readonly boolean[]): string[] {
  const queues = {
    compute: ops.flatMap((op, index) => (op.queue === 'compute' ? [index] : [])),
    comm: ops.flatMap((op, index) => (op.queue === 'comm' ? [index] : [])),
  }
  const done = new Set<number>()
  const ran: string[] = []
  const start = (queue: 'compute' | 'comm') => {
    const head = queues[queue][0]
    const op = head === undefined ? undefined : ops[head]
    if (head === undefined || !op || !op.waits.every(wait => done.has(wait))) return false
    queues[queue].shift()
    done.add(head)
    ran.push(op.label)
    return true
  }
  for (let step = 0; ; step++) {
    const preferred = picks[step % picks.length] ? 'compute' : 'comm'
    const other = preferred === 'compute' ? 'comm' : 'compute'
    if (!start(preferred) && !start(other)) return ran
  }
}

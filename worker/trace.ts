// Measured steps as a Chrome trace: one process per rank, one row per queue, an arrow wherever a queue waits for the other; opens in Perfetto. Pure.

import type { ScheduledOp } from './program/program.ts'
import type { Spans } from './schedule/schedule.ts'

/** One run of a program, `offset` microseconds after the start of the trace. */
export interface TracedRun {
  ops: readonly ScheduledOp[]
  spans: Spans
  offset: number
}

const ROW = { compute: 1, comm: 2 } as const

/** JSON of the Trace Event Format; `pid` is the rank. */
export function chromeTrace(runs: readonly TracedRun[], rank: number): string {
  return traceFile(traceEvents(runs, rank))
}

export const traceFile = (events: readonly object[]) => JSON.stringify({ displayTimeUnit: 'ms', traceEvents: events })

export function traceEvents(runs: readonly TracedRun[], rank: number): object[] {
  const name = (tid: number, label: string) => ({ ph: 'M', name: 'thread_name', pid: rank, tid, args: { name: label } })
  return [
    { ph: 'M', name: 'process_name', pid: rank, args: { name: `rank ${rank}` } },
    { ph: 'M', name: 'process_sort_index', pid: rank, args: { sort_index: rank } },
    name(ROW.compute, 'compute'),
    name(ROW.comm, 'communication'),
    ...runs.flatMap((run, index) => [...slices(run, rank), ...arrows(run, `${rank}.${index}`, rank)]),
  ]
}

function slices({ ops, spans, offset }: TracedRun, rank: number): object[] {
  return ops.map((op, i) => {
    const start = spans.start[i] ?? 0
    const skew = (spans.ready?.[i] ?? start) - start
    return {
      ph: 'X',
      name: op.label,
      cat: op.op,
      pid: rank,
      tid: ROW[op.queue],
      ts: offset + start,
      dur: (spans.end[i] ?? 0) - start,
      args: {
        part: op.segment.part,
        phase: op.segment.phase,
        unit: op.segment.unit,
        ...(op.queue === 'comm' ? { waitedForPeersMicroseconds: Math.round(skew) } : {}),
      },
    }
  })
}

/** From the end of what is waited for to the start of what waits. The times lie inside both slices, or viewers drop the arrow. */
function arrows({ ops, spans, offset }: TracedRun, run: string, rank: number): object[] {
  return ops.flatMap((op, to) =>
    op.waits.flatMap(from => {
      const source = ops[from]
      if (!source) return []
      const arrow = { name: 'waits', cat: 'wait', pid: rank, id: `${run}.${from}.${to}` }
      const begin = Math.max(spans.start[from] ?? 0, (spans.end[from] ?? 0) - 0.001)
      return [
        { ph: 's', ...arrow, tid: ROW[source.queue], ts: offset + begin },
        { ph: 'f', bp: 'e', ...arrow, tid: ROW[op.queue], ts: offset + (spans.start[to] ?? 0) },
      ]
    }),
  )
}

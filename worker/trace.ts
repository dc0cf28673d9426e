// A measured step as a Chrome trace: one row per queue; opens in Perfetto. Pure.

import type { ScheduledOp } from './program/program.ts'
import type { Spans } from './schedule/schedule.ts'

const ROW = { compute: 1, comm: 2 } as const

/** JSON of the Trace Event Format; `pid` is the rank, times in microseconds from the start of the step. */
export function chromeTrace(ops: readonly ScheduledOp[], spans: Spans, rank: number): string {
  const name = (tid: number, label: string) => ({ ph: 'M', name: 'thread_name', pid: rank, tid, args: { name: label } })
  const events = ops.map((op, i) => ({
    ph: 'X',
    name: op.label,
    cat: op.op,
    pid: rank,
    tid: ROW[op.queue],
    ts: spans.start[i],
    dur: (spans.end[i] ?? 0) - (spans.start[i] ?? 0),
    args: { part: op.segment.part, phase: op.segment.phase, pair: op.segment.pair },
  }))
  const head = [
    { ph: 'M', name: 'process_name', pid: rank, args: { name: `rank ${rank}` } },
    name(ROW.compute, 'compute'),
    name(ROW.comm, 'communication'),
  ]
  return JSON.stringify({ displayTimeUnit: 'ms', traceEvents: [...head, ...events] })
}

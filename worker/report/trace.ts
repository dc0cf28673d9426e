// Measured steps as a Chrome trace: one process per rank, one row per queue, arrows along the data that one queue makes and the other needs;
// opens in Perfetto. Pure.

import { chunkOf, reads, writes } from '../program/effects.ts'
import type { ScheduledOp } from '../program/program.ts'
import type { Spans } from '../schedule/schedule.ts'

/** One run of a program, `offset` microseconds after the start of the step. */
export interface TracedRun {
  ops: readonly ScheduledOp[]
  spans: Spans
  offset: number
}

export interface TracedStep {
  rank: number
  /** Wall clock at its start, microseconds since 1970: what the traces of several ranks are put beside each other by. */
  startMicroseconds: number
  runs: readonly TracedRun[]
}

const ROW = { compute: 1, comm: 2 } as const

/** JSON of the Trace Event Format; `pid` is the rank, times are microseconds from the start of the step. */
export function chromeTrace(step: TracedStep): string {
  const { startMicroseconds } = step
  return JSON.stringify({ displayTimeUnit: 'ms', otherData: { startMicroseconds }, traceEvents: traceEvents(step) })
}

function traceEvents({ rank, runs }: TracedStep): object[] {
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

/** From the compute op that completes what travels to the communication, and from there to the first compute op that needs it. */
function arrows({ ops, spans, offset }: TracedRun, run: string, rank: number): object[] {
  const arrow = (from: number, to: number) => {
    const common = { name: 'data', cat: 'data', pid: rank, id: `${run}.${from}.${to}` }
    // The times lie inside both slices, or viewers drop the arrow.
    const begin = Math.max(spans.start[from] ?? 0, (spans.end[from] ?? 0) - 0.001)
    return [
      { ph: 's', ...common, tid: rowOf(ops[from]), ts: offset + begin },
      { ph: 'f', bp: 'e', ...common, tid: rowOf(ops[to]), ts: offset + (spans.start[to] ?? 0) },
    ]
  }
  const made = byBuffer(ops, writes)
  const needed = byBuffer(ops, reads)
  const partners = (comm: number, names: readonly string[], table: ReadonlyMap<string, number[]>) =>
    names.flatMap(name => (table.get(name) ?? []).filter(other => sameChunk(ops[comm], ops[other], name)))
  return ops.flatMap((op, comm) => {
    if (op.queue !== 'comm') return []
    const producer = Math.max(-1, ...partners(comm, reads(op), made).filter(other => other < comm))
    const consumer = Math.min(ops.length, ...partners(comm, writes(op), needed).filter(other => other > comm))
    return [...(producer < 0 ? [] : arrow(producer, comm)), ...(consumer < ops.length ? arrow(comm, consumer) : [])]
  })
}

const rowOf = (op: ScheduledOp | undefined) => ROW[op?.queue ?? 'compute']

/** Compute ops by the buffers they touch. */
function byBuffer(ops: readonly ScheduledOp[], touched: (op: ScheduledOp) => readonly string[]): Map<string, number[]> {
  const table = new Map<string, number[]>()
  for (const [index, op] of ops.entries()) {
    if (op.queue !== 'compute') continue
    for (const name of touched(op)) {
      const list = table.get(name) ?? []
      table.set(name, list)
      list.push(index)
    }
  }
  return table
}

/** False where both work on rows of this buffer in chunks, on different ones. */
function sameChunk(a: ScheduledOp | undefined, b: ScheduledOp | undefined, buffer: string): boolean {
  const [one, other] = [a && chunkOf(a), b && chunkOf(b)]
  const inChunks = one?.buffers.has(buffer) === true && other?.buffers.has(buffer) === true
  return !inChunks || one?.chunk === other?.chunk
}

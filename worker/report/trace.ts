// Measured steps as a Chrome trace, which Perfetto opens: a process for each rank, a row for each
// queue, and arrows for data that one queue produces and the other one needs. Pure.

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
  /**
   * Wall clock at the start of the step, in microseconds since 1970. It aligns the traces of
   * several ranks.
   */
  startMicroseconds: number
  runs: readonly TracedRun[]
}

const ROW = { compute: 1, comm: 2 } as const

/** JSON in the Trace Event Format. `pid` is the rank; times are microseconds in the step. */
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

/**
 * Arrows to every communication from the compute op that completes its data, and from there to the
 * first compute op that needs the result.
 */
function arrows({ ops, spans, offset }: TracedRun, run: string, rank: number): object[] {
  const arrow = (from: number, to: number) => {
    const common = { name: 'data', cat: 'data', pid: rank, id: `${run}.${from}.${to}` }
    // Viewers drop an arrow whose ends do not lie inside the slices.
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

/** Indices of compute ops by the buffers that they touch. */
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

/** False if the ops work on different chunks of this buffer. */
function sameChunk(a: ScheduledOp | undefined, b: ScheduledOp | undefined, buffer: string): boolean {
  const [one, other] = [a && chunkOf(a), b && chunkOf(b)]
  const inChunks = one?.buffers.has(buffer) === true && other?.buffers.has(buffer) === true
  return !inChunks || one?.chunk === other?.chunk
}

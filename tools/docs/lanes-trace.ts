// Reads the part of a worker's trace that the picture of the two lanes shows. Pure.

import { z } from 'zod'

export const PHASES = ['forward', 'backward'] as const
export type Phase = (typeof PHASES)[number]

/** A kind of work, which has one colour in the picture. */
export type Work = 'attention' | 'mlp' | 'shared' | 'experts' | 'routing' | 'dispatch' | 'combine' | 'sums'

/** Consecutive ops of one part on one queue; times in microseconds from the left edge. */
export interface Bar {
  name: string
  work: Work
  start: number
  end: number
  /** The time at the beginning of a transfer in which it waited for the other ranks. */
  waited: number
}

export interface Lanes {
  /** Microseconds from the first compute op of the unit to its last. */
  duration: number
  compute: Bar[]
  comm: Bar[]
  /** Microseconds of the transfers, without waiting for other ranks. */
  transfers: number
  /** Share of the transfers during which compute was busy, 0 to 100. */
  hiddenPercent: number
}

const Slice = z.object({
  name: z.string(),
  ts: z.number(),
  dur: z.number(),
  tid: z.number(),
  args: z.object({
    part: z.string(),
    phase: z.string(),
    unit: z.number(),
    waitedForPeersMicroseconds: z.number().optional(),
  }),
})
type Slice = z.infer<typeof Slice>
const Trace = z.object({ traceEvents: z.array(z.looseObject({ ph: z.string() })) })

/** Rows of worker/report/trace.ts. */
const COMPUTE_ROW = 1

const PARTS: Readonly<Record<string, { name: string; work: Work }>> = {
  dense: { name: 'Dense blocks', work: 'mlp' },
  attn0: { name: 'Attention', work: 'attention' },
  attn1: { name: 'Attention', work: 'attention' },
  mlp: { name: 'MLP', work: 'mlp' },
  shared: { name: 'Shared expert', work: 'shared' },
  gate: { name: 'Gate', work: 'routing' },
  encode: { name: 'Encode', work: 'routing' },
  decode: { name: 'Decode', work: 'routing' },
  counts: { name: 'Counts', work: 'routing' },
  dispatch: { name: 'Dispatch', work: 'dispatch' },
  combine: { name: 'Combine', work: 'combine' },
  experts: { name: 'Experts', work: 'experts' },
  wgrad: { name: 'Experts', work: 'experts' },
  reduce: { name: 'Sums', work: 'sums' },
}
const OTHER = { name: 'Other', work: 'routing' } as const

/** Ops of one part are one bar unless more than this share of the picture lies between them. */
const LEAST_GAP = 0.004

/** Throws if the trace has no compute op of this unit and phase. */
export function lanesOf(text: string, { unit, phase }: { unit: number; phase: Phase }): Lanes {
  const slices = lastRun(
    Trace.parse(JSON.parse(text)).traceEvents.flatMap(event => (event.ph === 'X' ? [Slice.parse(event)] : [])),
  )
  const own = slices.filter(({ tid, args }) => tid === COMPUTE_ROW && args.unit === unit && args.phase === phase)
  if (own.length === 0) throw new Error(`the trace has no unit ${unit} in phase ${phase}`)
  const begin = Math.min(...own.map(({ ts }) => ts))
  const end = Math.max(...own.map(endOf))
  const comm = slices.filter(slice => slice.tid !== COMPUTE_ROW && endOf(slice) > begin && slice.ts < end)
  const duration = end - begin
  const lanes = { compute: barsOf(own, { begin, duration }), comm: barsOf(comm, { begin, duration }) }
  return { duration, ...lanes, ...hiding(lanes) }
}

const endOf = ({ ts, dur }: Slice) => ts + dur

/** A step with micro-batches runs a program several times: the slices of the last one. */
function lastRun(slices: readonly Slice[]): Slice[] {
  let names = new Set<string>()
  let run: Slice[] = []
  for (const slice of slices) {
    if (names.has(slice.name)) {
      names = new Set()
      run = []
    }
    names.add(slice.name)
    run.push(slice)
  }
  return run
}

function barsOf(slices: readonly Slice[], { begin, duration }: { begin: number; duration: number }): Bar[] {
  const bars: Bar[] = []
  for (const slice of slices.toSorted((a, b) => a.ts - b.ts)) {
    const { name, work } = PARTS[slice.args.part] ?? OTHER
    const start = Math.max(0, slice.ts - begin)
    const end = Math.min(duration, endOf(slice) - begin)
    const waited = Math.min(end - start, slice.args.waitedForPeersMicroseconds ?? 0)
    const last = bars.at(-1)
    if (last?.name === name && waited === 0 && start - last.end <= LEAST_GAP * duration) last.end = end
    else bars.push({ name, work, start, end, waited })
  }
  return bars
}

function hiding({ compute, comm }: Pick<Lanes, 'compute' | 'comm'>): Pick<Lanes, 'transfers' | 'hiddenPercent'> {
  const transfers = comm.map(({ start, end, waited }) => ({ start: start + waited, end }))
  const total = transfers.reduce((sum, { start, end }) => sum + end - start, 0)
  const hidden = transfers.reduce(
    (sum, transfer) => sum + compute.reduce((inner, bar) => inner + common(transfer, bar), 0),
    0,
  )
  return { transfers: total, hiddenPercent: total > 0 ? (100 * hidden) / total : 100 }
}

type Interval = Pick<Bar, 'start' | 'end'>
const common = (a: Interval, b: Interval) => Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start))

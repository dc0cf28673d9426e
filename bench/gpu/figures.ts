// Works out figures from the results of bench/gpu/run.sh: shares of the device's peak, how much of
// the transfers was hidden, and how well that was predicted. Pure.

import { common } from '../../worker/schedule/intervals.ts'
import { durations, makespan, overlap } from '../../worker/schedule/schedule.ts'
import type { Precision } from './cases.ts'
import { isProduct, type OpShare, type Peaks, peaksOf, sharesOf } from './peaks.ts'
import { checksOf, killedOf, measuredOf, type Results } from './results.ts'
import { type Cases, type Found, found } from './rows.ts'

export interface ModelFigures {
  case: string
  milliseconds: number
  tokensPerSecond: number
  /**
   * Operations per second of matrix products and attention (bench/world/peak.ts), divided by those
   * of the fastest product; null without a peak.
   */
  mfu: number | null
  /** The time of the step op by op divided by that as a graph; null if one of them is missing. */
  eagerOverGraph: number | null
  /** By kind of op, longest first. */
  ops: OpShare[]
}

export interface LayerFigures {
  layer: number
  forwardMilliseconds: number
  backwardMilliseconds: number
  /** Share of the speed of the fastest product, forward and backward together. */
  shareOfPeak: number | null
}

export interface OverlapFigures {
  /** Forward slot K; null for the sequential schedule. */
  slot: number | null
  /** The share of the MoE layers' time that transfers were made to take. */
  transferShare: number
  milliseconds: number
  /** The time of the same step without transfers divided by the time of this step. */
  ofBound: number
  hiddenPercent: number
  /**
   * The makespan predicted from the sequential run with such transfers, divided by the measured
   * one.
   */
  predictedOverMeasured: number | null
}

/**
 * The speed that compute loses while a transfer runs beside it, as a share of the time they run
 * together.
 */
export interface Contention {
  products: number
  all: number
}

export type PeaksOf = Readonly<Record<Precision, Peaks | null>>
/** Peaks that replace the measured ones. */
export type Given = Partial<Record<Precision, Partial<Peaks>>>

export interface Figures {
  /** The peaks for products in each precision; null if none was measured in it. */
  peaks: PeaksOf
  models: ModelFigures[]
  layers: LayerFigures[]
  overlap: OverlapFigures[]
  contention: Contention | null
  /** The largest relative difference of a loss; null if a row is missing. */
  losses: {
    gpuBesideCpu: number | null
    bfloat16BesideFloat32: number | null
    graphBesideEager: number | null
    twoRanksBesideOne: number | null
  }
  ops: 'passed' | 'failed' | null
  /** How one of two ranks ended after the other was killed. */
  rankKilled: { exitCode: number; message: string } | null
  failed: string[]
}

/** Throws if a row was measured with another version's programs. */
export function figuresOf(results: Results, cases: Cases, given: Given = {}): Figures {
  const peaks: PeaksOf = {
    float32: peaksOf(found(results, cases, 'peak'), given.float32 ?? {}),
    bfloat16: peaksOf(found(results, cases, 'peak-bf16'), given.bfloat16 ?? {}),
  }
  const contention = contentionOf(results, cases)
  const names = [...cases.keys()]
  return {
    peaks,
    models: names.filter(isModel).flatMap(name => modelFigures(results, cases, name, peaks)),
    layers: names.flatMap(name => layerFigures(results, cases, name, peaks)),
    overlap: names.flatMap(name => overlapFigures(results, cases, name, contention?.all ?? 0)),
    contention,
    losses: {
      gpuBesideCpu: lossesApart(results, 'tiny', 'tiny-cpu'),
      bfloat16BesideFloat32: lossesApart(results, 'tiny-bf16', 'tiny'),
      graphBesideEager: lossesApart(results, 'tiny', 'tiny-eager'),
      twoRanksBesideOne: lossesApart(results, 'two-ranks', 'tiny'),
    },
    ops: checksOf(results)?.outcome ?? null,
    rankKilled: killedOf(results) ?? null,
    failed: results.rows.filter(({ error }) => error !== undefined).map(row => row.case),
  }
}

const isModel = (name: string) => name.startsWith('model-')

function modelFigures(results: Results, cases: Cases, name: string, all: PeaksOf): ModelFigures[] {
  const graph = found(results, cases, name)
  const eager = measuredOf(results, `${name}-eager`)
  if (!graph) return []
  const { milliseconds, tokensPerSecond } = graph.measured
  const peaks = all[graph.subject.precision]
  return [
    {
      case: name,
      milliseconds,
      tokensPerSecond,
      mfu: peaks && graph.subject.file.flops / (milliseconds * 1e-3) / peaks.flopsPerSecond,
      eagerOverGraph: eager ? eager.milliseconds / milliseconds : null,
      ops: sharesOf(graph, peaks),
    },
  ]
}

function layerFigures(results: Results, cases: Cases, name: string, all: PeaksOf): LayerFigures[] {
  const layer = /^layer-(\d+)-backward$/.exec(name)?.[1]
  const both = layer === undefined ? undefined : found(results, cases, name)
  const forward = found(results, cases, `layer-${layer}-forward`)
  if (!both || !forward) return []
  const { milliseconds } = both.measured
  const peaks = all[both.subject.precision]
  return [
    {
      layer: Number(layer),
      forwardMilliseconds: forward.measured.milliseconds,
      backwardMilliseconds: milliseconds - forward.measured.milliseconds,
      shareOfPeak: peaks && both.subject.file.flops / (milliseconds * 1e-3) / peaks.flopsPerSecond,
    },
  ]
}

const SHARES = ['0.15', '0.5', '0.6'] as const

const SEQUENTIAL = 'overlap-0'
const slotOf = (name: string) => (name === SEQUENTIAL ? null : Number(name.slice('overlap-'.length)))
const isShortcut = (name: string) => name.startsWith('overlap-') && name !== SEQUENTIAL

function overlapFigures(results: Results, cases: Cases, name: string, contention: number): OverlapFigures[] {
  if (!name.startsWith('overlap-')) return []
  return SHARES.flatMap(share => {
    const row = found(results, cases, name, `-${share}`)
    if (!row) return []
    const { milliseconds, freeMilliseconds = Number.NaN } = row.measured
    const measured = Math.max(...row.spans.end)
    const predicted = predict(row, found(results, cases, SEQUENTIAL, `-${share}`), contention)
    return {
      slot: slotOf(name),
      transferShare: Number(share),
      milliseconds,
      ofBound: freeMilliseconds / milliseconds,
      hiddenPercent: overlap(row.subject.scheduled, row.spans).hiddenPercent,
      predictedOverMeasured: predicted === null ? null : predicted / measured,
    }
  })
}

/**
 * Predicts the makespan in microseconds as a worker does: from the times of a run under another
 * schedule, with its transfers scaled to the length of these.
 */
function predict(row: Found, sequential: Found | undefined, contention: number): number | null {
  if (!sequential) return null
  const { emitted, scheduled } = sequential.subject
  const longer =
    (row.measured.emulatedTransferMicroseconds ?? 0) / (sequential.measured.emulatedTransferMicroseconds ?? 0)
  const times = durations(emitted, scheduled, sequential.spans).map((time, op) =>
    emitted.ops[op]?.op === 'all_to_all' ? time * longer : time,
  )
  return makespan(row.subject.scheduled, row.subject.emitted, { times: [times], contention, latency: 0 }).total
}

/**
 * The contention over all schedules and shares: the time that ops took longer than in the same
 * schedule without transfers, divided by the time that a transfer ran beside them.
 */
function contentionOf(results: Results, cases: Cases): Contention | null {
  const losses = [...cases.keys()].filter(isShortcut).flatMap(name => {
    const free = found(results, cases, name, '-free')
    return SHARES.flatMap(share => {
      const row = found(results, cases, name, `-${share}`)
      return free && row ? lossesOf(row, free) : []
    })
  })
  if (losses.length === 0) return null
  const share = (list: typeof losses) => {
    const sum = (value: (loss: (typeof losses)[number]) => number) => list.reduce((all, loss) => all + value(loss), 0)
    return Math.min(Math.max(sum(({ lost }) => lost) / sum(({ beside }) => beside) || 0, 0), 1)
  }
  return { products: share(losses.filter(({ product }) => product)), all: share(losses) }
}

/**
 * For each compute op beside which an all-to-all ran: for how long it did, and how much longer the
 * op took than in the run without transfers.
 */
function lossesOf(row: Found, free: Found) {
  const { ops } = row.subject.scheduled
  const transfers = ops.flatMap(({ op }, index) => (op === 'all_to_all' ? [spanOf(row, index)] : []))
  return ops.flatMap((op, index) => {
    const own = spanOf(row, index)
    const beside = transfers.reduce((sum, transfer) => sum + common(own, transfer), 0)
    if (op.queue !== 'compute' || beside === 0) return []
    return [{ product: isProduct(op), beside, lost: length(own) - length(spanOf(free, index)) }]
  })
}

const spanOf = ({ spans }: Found, op: number) => ({ start: spans.start[op] ?? 0, end: spans.end[op] ?? 0 })
const length = ({ start, end }: ReturnType<typeof spanOf>) => end - start

function lossesApart(results: Results, one: string, other: string): number | null {
  const [a, b] = [one, other].map(name => measuredOf(results, name)?.reported['loss'])
  if (!a || !b || a.length !== b.length) return null
  return Math.max(...a.map((loss, step) => Math.abs(loss - (b[step] ?? Number.NaN)) / Math.abs(loss)))
}

// Formats the figures of a GPU as the tables of docs/performance.md.

import { type Cell, fixed, markdown } from '../report.ts'
import { LAYERS } from './cases.ts'
import type { Figures, OverlapFigures, PeaksOf } from './figures.ts'

const percent = (share: number | null, digits = 1) => (share === null ? '-' : `${fixed(100 * share, digits)} %`)
const apart = (difference: number | null) => (difference === null ? '-' : `${difference.toExponential(1)} apart`)

/**
 * Milliseconds forward / backward of Megatron-Core on H100, including its all-to-all over eight
 * ranks.
 */
const PUBLISHED = ['4.327 / 7.684', '7.119 / 10.483']

export function tables(figures: Figures): string {
  const parts = [markdown(['What', 'Wanted', 'Measured'], summary(figures))]
  if (figures.overlap.length > 0) parts.push(markdown(OVERLAP, figures.overlap.map(overlapRow)))
  for (const { case: name, ops } of figures.models)
    parts.push(
      markdown(
        [`Ops of ${name}`, 'Calls', 'us', 'Of the step', 'Of peak'],
        ops.map(({ op, count, microseconds, shareOfTime, shareOfPeak }) => [
          op,
          count,
          fixed(microseconds, 0),
          percent(shareOfTime),
          percent(shareOfPeak),
        ]),
      ),
    )
  if (figures.failed.length > 0) parts.push(`Failed: ${figures.failed.join(', ')}`)
  return parts.join('\n\n')
}

function summary({ peaks, models, layers, contention, losses, ops, rankKilled }: Figures): Cell[][] {
  return [
    ['Ops against the CPU reference', 'within 1e-4 (fp32)', ops ?? '-'],
    ...peakRows(peaks),
    ['Loss of ten steps beside the CPU engine', 'within 1e-4', apart(losses.gpuBesideCpu)],
    ...(losses.bfloat16BesideFloat32 === null
      ? []
      : [['The same in bfloat16 beside float32', 'within 0.4 %', apart(losses.bfloat16BesideFloat32)]]),
    ['Loss as a graph beside op by op', 'the same bits', apart(losses.graphBesideEager)],
    ['Loss of two NCCL ranks beside one', 'within 1e-4', apart(losses.twoRanksBesideOne)],
    ['A killed rank ends the other', 'PEER_LOST', rankKilled ? `${rankKilled.exitCode}: ${rankKilled.message}` : '-'],
    ...models.map(({ case: name, milliseconds, tokensPerSecond, mfu, eagerOverGraph }) => [
      name,
      name === 'model-d2048-bf16' ? '45 % of the peak' : '-',
      `${fixed(milliseconds, 2)} ms, ${fixed(tokensPerSecond, 0)} tokens/s, ${percent(mfu)} of the peak; op by op ${fixed(eagerOverGraph, 2) ?? '-'} times as long`,
    ]),
    ...layers.map(({ layer, forwardMilliseconds, backwardMilliseconds, shareOfPeak }) => {
      const { rows, experts, hidden, feedForward } = LAYERS[layer] ?? { rows: 0, experts: 0, hidden: 0, feedForward: 0 }
      return [
        `MoE layer, ${rows} rows x ${experts}, h ${hidden}, f ${feedForward}, forward / backward`,
        `beside Megatron-Core's ${PUBLISHED[layer]} ms, all-to-all included there`,
        `${fixed(forwardMilliseconds, 3)} / ${fixed(backwardMilliseconds, 3)} ms, ${percent(shareOfPeak)} of the peak`,
      ]
    }),
    [
      'Compute slows down while a transfer runs',
      '-',
      contention ? `products by ${percent(contention.products)}, all ops by ${percent(contention.all)}` : '-',
    ],
  ]
}

const peakRows = (peaks: PeaksOf): Cell[][] =>
  (['float32', 'bfloat16'] as const).flatMap(precision => {
    const { flopsPerSecond, bytesPerSecond } = peaks[precision] ?? {}
    if (flopsPerSecond === undefined || bytesPerSecond === undefined) return []
    const measured = `${fixed(flopsPerSecond / 1e12, 1)} TFLOP/s, ${fixed(bytesPerSecond / 1e12, 2)} TB/s`
    return [[`Fastest product in ${precision}, copy`, '-', measured]]
  })

const OVERLAP = [
  'Schedule',
  'Transfers of MoE time',
  'ms',
  'Of the transfer-free bound',
  'Hidden',
  'Predicted / measured',
]

const overlapRow = ({ slot, transferShare, ...figures }: OverlapFigures): Cell[] => [
  slot === null ? 'sequential' : `K=${slot}`,
  percent(transferShare, 0),
  fixed(figures.milliseconds, 2),
  fixed(figures.ofBound, 3),
  `${fixed(figures.hiddenPercent, 1)} %`,
  fixed(figures.predictedOverMeasured, 3) ?? '-',
]

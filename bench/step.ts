// npm run bench:step: compares whole optimizer steps, forward to AdamW, with the fastest matrix
// product of this machine. First one rank alone, also with its memory compared with the plan; then
// two ranks of one thread each, with and without a limit of their links, compared with Top2 in
// sequence. bench/README.md explains the figures.
//
//   node bench/step.ts [--json FILE] [--quick] [--rounds N] [--hidden 256,512]

import { parseArgs } from 'node:util'
import { fixed, machine, showFigures, table, writeJson } from './report.ts'
import { type Alone, stepAlone } from './step/alone.ts'
import { type Row, stepsOfRanks } from './step/ranks.ts'
import { ALONE, QUICK, SHAPES } from './step/shape.ts'
import type { Figure } from './turns/figures.ts'
import { sentenceOf, Watch } from './turns/watch.ts'
import { obstacle } from './world/network.ts'

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    hidden: { type: 'string', default: '256,512' },
  },
})
const rounds = Number(options.rounds ?? (options.quick ? 2 : 5))
const hidden = new Set(options.hidden.split(',').map(Number))
const shapes = options.quick ? [QUICK] : SHAPES.filter(shape => hidden.has(shape.hidden))

/** How far the loss of an untrained model may be from the logarithm of its vocabulary. */
const LOSS_TOLERANCE = 0.3
const isRight = ({ loss }: Alone) => Math.abs(loss - Math.log(256)) < LOSS_TOLERANCE

function showAlone(alone: Alone): string {
  const { milliseconds, gigaflopsPerSecond, peakGigaflopsPerSecond, percentOfGemmPeak, loss } = alone
  const { activationBytesPerToken, plannedActivationBytesPerToken } = alone
  const parts = alone.parts.map(part => [part.op, fixed(part.milliseconds, 1), fixed(part.gigaflopsPerSecond, 0)])
  const kib = (bytes: number) => `${(bytes / 1024).toFixed(1)} KiB`
  return [
    table(['op', 'ms', 'GF/s'], parts),
    '',
    `whole step ${milliseconds.toFixed(0)} ms, ${gigaflopsPerSecond.toFixed(1)} GF/s of ${peakGigaflopsPerSecond.toFixed(1)}: ${percentOfGemmPeak.toFixed(1)} % of the peak`,
    `loss ${loss.toFixed(3)}, ${isRight(alone) ? 'right' : 'WRONG'} for an untrained model`,
    `activations per token: ${kib(activationBytesPerToken)} measured, ${kib(plannedActivationBytesPerToken)} planned`,
  ].join('\n')
}

const showRows = (rows: readonly Row[]) =>
  table(
    ['d', 'link Mbit/s', 'kind', 'strategy', 'schedule', 'tokens/s', '% of peak', 'x Top2'],
    rows.map(row => [
      row.hidden,
      row.linkMbit ?? 'no limit',
      row.kind,
      row.strategy,
      row.schedule,
      fixed(row.tokensPerSecond, 0),
      fixed(row.percentOfGemmPeak, 1),
      fixed(row.ratioToTop2, 3),
    ]),
  )

const single = options.quick ? QUICK : ALONE
console.log(
  `${machine()}\n\none rank, one thread, d=${single.hidden}, sequence ${single.sequence}, 4 blocks, 8 experts`,
)
const watch = new Watch()
const { alone, figures: own } = await stepAlone(single, rounds, watch)
console.log(showAlone(alone))

const rows: Row[] = []
const figures: Figure[] = own
const reason = obstacle()
if (reason === undefined) {
  for (const shape of shapes) {
    const steps = await stepsOfRanks(shape, rounds, watch)
    rows.push(...steps.rows)
    figures.push(...steps.figures)
  }
  console.log(`\ntwo ranks of one thread\n${showRows(rows)}`)
} else {
  console.log(`\ntwo ranks are left out: ${reason}`)
}
const { disturbance } = watch
console.log(`\n${showFigures(figures)}\n\n${sentenceOf(disturbance)}`)
writeJson(options.json, { bench: 'step', machine: machine(), disturbance, figures, alone, rows })
if (!isRight(alone)) process.exitCode = 1

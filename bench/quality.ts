// npm run bench:quality: compares the held-out losses of the architectures after training on the
// same data with the same steps, rates and seeds, and how evenly their experts are loaded. Results
// of runs are kept in build/quality, so that an interrupted benchmark continues; remove that folder
// to train again.
//
//   node bench/quality.ts [--json FILE] [--plots DIR] [--kinds Top2,SharedExpert,…] [--seeds N]
//                         [--steps N] [--parallel N] [--hidden N] [--sequence N] [--sequences N]
//                         [--learning-rate X]

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { BASELINE, type Job, KIND_NAMES, keyOf, parametersOf } from './quality/jobs.ts'
import { balancePlot, lossPlot } from './quality/plots.ts'
import { runAll } from './quality/pool.ts'
import { type Claim, claims, figuresOfLosses, type Line, linesOf, type Spread } from './quality/statistics.ts'
import { type Cell, fixed, machine, showFigures, table, writeJson } from './report.ts'

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    plots: { type: 'string' },
    kinds: { type: 'string', default: KIND_NAMES.join(',') },
    seeds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '1500' },
    parallel: { type: 'string', default: '2' },
    hidden: { type: 'string', default: '64' },
    sequence: { type: 'string', default: '64' },
    sequences: { type: 'string', default: '16' },
    'learning-rate': { type: 'string', default: '6e-3' },
  },
})
const FOLDER = join(import.meta.dirname, '../build/quality')
/**
 * Held-out loss in arXiv 2404.05019: ScMoE with CG-1 3.2248, with a shared expert 3.2406, top-2
 * 3.2704.
 */
const PUBLISHED = ['ScMoE Pos-2 CG1', 'SharedExpert', 'Top2']

const steps = Number(options.steps)
const kinds = options.kinds.split(',').map(kind => kind.trim())
const seeds = Array.from({ length: Number(options.seeds) }, (_, index) => index + 1)
const jobOf = (kind: string, seed: number): Job => ({
  kind,
  seed,
  steps,
  learningRate: options['learning-rate'],
  hidden: Number(options.hidden),
  sequence: Number(options.sequence),
  sequences: Number(options.sequences),
  evaluationBatches: 64,
  loadSteps: Math.min(50, steps),
})

/** A column of the table. */
type Column = [head: string, cell: (line: Line) => Cell]
const of = (spread: Spread | undefined, value: (spread: Spread) => Cell) => (spread ? value(spread) : null)
const range = ({ least, most }: Spread, digits: number) => `${fixed(least, digits)}..${fixed(most, digits)}`
const COLUMNS: Column[] = [
  ['kind', line => line.kind],
  ['parameters', line => line.parameters],
  ['of a token', line => line.active],
  ['held-out loss', line => fixed(line.loss.mean, 4)],
  ['deviation', line => fixed(line.loss.deviation, 4)],
  ['range', line => range(line.loss, 4)],
  [`- ${BASELINE}`, line => of(line.toBaseline?.difference, ({ mean }) => fixed(mean, 4))],
  ['range', line => of(line.toBaseline?.difference, difference => range(difference, 4))],
  ['load max/mean', line => of(line.maxOverMean, ({ mean }) => fixed(mean, 2))],
  ['range', line => of(line.maxOverMean, load => range(load, 2))],
  ['dropped %', line => of(line.dropped, ({ mean }) => fixed(100 * mean, 2))],
]
const HEAD = COLUMNS.map(([head]) => head)
const rowsOf = (lines: readonly Line[]) => lines.map(line => COLUMNS.map(([, cell]) => cell(line)))

const showClaims = (list: readonly Claim[]) =>
  table(
    ['published order', 'difference', 'range', 'seeds', ''],
    list.map(({ better, than, comparison: { difference, lower, seeds: count }, verdict }) => [
      `${better} <= ${than}`,
      fixed(difference.mean, 4),
      range(difference, 4),
      `${lower} of ${count}`,
      verdict,
    ]),
  )

const jobs = seeds.flatMap(seed => kinds.map(kind => jobOf(kind, seed)))
const first = jobs[0]
if (!first) throw new Error('there is nothing to run: give --kinds and --seeds at least 1')
// Throws for an unknown kind before anything runs.
for (const job of jobs) keyOf(job)
mkdirSync(FOLDER, { recursive: true })
const started = performance.now()
const runs = await runAll(jobs, {
  parallel: Number(options.parallel),
  path: job => join(FOLDER, `${keyOf(job)}.json`),
  log: text => console.error(`${((performance.now() - started) / 1000).toFixed(0).padStart(5)} s  ${text}`),
})
const lines = linesOf(runs, kind => parametersOf(jobOf(kind, 1)), BASELINE)
const order = claims(runs, PUBLISHED)
const shape =
  `sotu, ${steps} steps of ${first.sequences} sequences of ${first.sequence} bytes, learning rate ${first.learningRate}, ` +
  `d=${first.hidden}, 4 blocks, 8 experts, capacity factor 2, f32, seeds ${seeds.join(', ')}`

console.log(`${machine()}\n${shape}\n\n${table(HEAD, rowsOf(lines))}`)
if (order.length > 0) console.log(`\n${showClaims(order)}`)
// Losses do not depend on what else runs on the machine, so no turn is repeated.
const figures = figuresOfLosses(runs, BASELINE)
if (figures.length > 0) console.log(`\n${showFigures(figures)}`)
writeJson(options.json, { bench: 'quality', machine: machine(), shape, figures, lines, order, runs })
if (options.plots !== undefined) {
  mkdirSync(options.plots, { recursive: true })
  writeFileSync(join(options.plots, 'quality-loss.svg'), lossPlot(runs, BASELINE))
  writeFileSync(join(options.plots, 'quality-balance.svg'), balancePlot(runs))
}

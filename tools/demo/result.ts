// The result of the demo as a JSON file, from which `npm run docs:measurements` makes a page.

import { machine, writeJson } from '../../bench/report.ts'
import { type Figure, figureOf } from '../../bench/turns/figures.ts'
import { disturbanceOf, isQuiet } from '../../bench/turns/watch.ts'
import { median } from '../../worker/median.ts'
import type { Job } from './follow.ts'
import { type Comparison, comparisonOf, type Turn } from './plan.ts'

export interface Result {
  job: Job
  turns: readonly Turn[]
  /** Seconds from the start of the demo to the end of its last turn. */
  seconds: number
}

export function writeResult(path: string | undefined, { job, turns, seconds }: Result): void {
  const comparison = comparisonOf(turns)
  const quiet = turns.filter(({ taken }) => isQuiet(taken))
  writeJson(path, {
    bench: 'demo',
    machine: machine(),
    seconds,
    // A disturbed turn never counts here.
    disturbance: disturbanceOf(
      quiet.map(({ taken }) => taken),
      turns.length - quiet.length,
    ),
    job: { ...job.status?.progress, ...job.status?.throughput },
    figures: comparison === undefined ? [] : figuresOf(comparison),
    turns,
  })
}

/** The ratio, with an interval over the pairs of turns, and the shares that belong to it. Pure. */
export function figuresOf({ pairs, sides, mbit }: Comparison): Figure[] {
  const ratio = figureOf({
    name: 'ScMoE with the shortcut over top-2 in sequence, tokens/s',
    unit: 'x',
    samples: pairs,
    statistic: drawn => median(drawn.map(pair => pair.shortcut)) / median(drawn.map(pair => pair.sequential)),
  })
  const single = (name: string, value: number, unit: string): Figure => {
    return { name, value, unit, aim: null, met: null, low: null, high: null }
  }
  return [
    ratio,
    single('all-to-all of MoE time, in sequence', sides.sequential.sharePercent, '%'),
    single('all-to-all hidden, shortcut', sides.shortcut.hiddenPercent, '%'),
    single('links', mbit, 'Mbit/s'),
  ]
}

// Charts of the losses and loads of all runs as SVG text: a row for each kind, a dot for each seed.
// Pure.

import * as Plot from '@observablehq/plot'
import { parseHTML } from 'linkedom'
import type { Measured } from './statistics.ts'

interface Dot {
  kind: string
  value: number
}

interface Axis {
  label: string
  /** Value at which a line crosses the chart, e.g. the mean of the baseline. */
  at: number | undefined
}

/** Chart of held-out losses, with a line at the mean of `baseline`. */
export function lossPlot(runs: readonly Measured[], baseline: string): string {
  const dots = runs.map(({ job, evaluationLoss }) => ({ kind: job.kind, value: evaluationLoss }))
  const own = dots.filter(({ kind }) => kind === baseline).map(({ value }) => value)
  const at = own.length > 0 ? own.reduce((sum, value) => sum + value, 0) / own.length : undefined
  return chart(dots, { label: `held-out loss, nats per byte (line: mean of ${baseline})`, at })
}

/**
 * Chart of the tokens of the fullest expert over the mean, with a line at an even load. Kinds
 * without experts are left out. /
 */
export function balancePlot(runs: readonly Measured[]): string {
  const dots = runs.flatMap(({ job, load }) => (load ? [{ kind: job.kind, value: load.maxOverMean }] : []))
  return chart(dots, { label: 'tokens of the fullest expert / mean of the experts (1: even)', at: 1 })
}

const ROW = 24
const BLUE = '#1f6fb2'

function chart(dots: readonly Dot[], { label, at }: Axis): string {
  const kinds = [...new Set(dots.map(({ kind }) => kind))]
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const svg = Plot.plot({
    document,
    // The default name is random, but the same runs should give the same file.
    className: 'quality',
    style: { background: 'white', color: '#222', fontSize: '12px' },
    width: 760,
    height: kinds.length * ROW + 60,
    marginLeft: 160,
    marginRight: 24,
    marginBottom: 40,
    x: { label, grid: true, nice: true, labelAnchor: 'center', labelArrow: 'none' },
    y: { domain: kinds, label: null },
    marks: [
      ...(at === undefined ? [] : [Plot.ruleX([at], { stroke: '#999', strokeDasharray: '4 3' })]),
      Plot.ruleY(
        dots,
        Plot.groupY({ x1: 'min', x2: 'max' }, { y: 'kind', x: 'value', stroke: BLUE, strokeOpacity: 0.5 }),
      ),
      Plot.dot(dots, { x: 'value', y: 'kind', r: 3, fill: BLUE, fillOpacity: 0.5 }),
      Plot.tickX(dots, Plot.groupY({ x: 'mean' }, { y: 'kind', x: 'value', stroke: BLUE, strokeWidth: 2, inset: 5 })),
    ],
  })
  svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg')
  return `${svg.outerHTML}\n`
}

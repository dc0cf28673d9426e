// The table of scmoe top, made from jobs as the API server returns them. Pure.

import { plainText } from '../../crds/contract.ts'
import type { ScMoEJobStatus, State } from '../../crds/status.ts'
import type { Job } from '../../operator/objects/wire.ts'
import { readSpec, readStatus } from '../../operator/plan/view.ts'
import { duration, nats } from '../sentence.ts'

export interface Row {
  name: string
  namespace: string
  uid: string
  status: ScMoEJobStatus
  replicas: number | undefined
  /** Seconds between two reports of the job. */
  interval: number
}

export interface Shown {
  /** Milliseconds since 1970. */
  now: number
  trends: Trends | undefined
  /** Whether the table has a column for namespaces. */
  namespaces: boolean
  /** The namespace whose jobs were asked for. */
  where: string
  style: Style
}

type Format = 'bold' | 'green' | 'yellow' | 'red'
/** `styleText` of node:util, which knows whether stdout shows colours. */
export type Style = (format: Format, text: string) => string

export function rowOf(job: Job): Row {
  const { name, namespace = '', uid = '' } = job.metadata
  const reading = readSpec(job)
  const spec = 'spec' in reading ? reading.spec : undefined
  return {
    name,
    namespace,
    uid,
    status: readStatus(job),
    replicas: spec?.workers.replicas,
    interval: spec?.reporting.intervalSeconds ?? 15,
  }
}

const KEPT = 24
const BARS = '▁▂▃▄▅▆▇█'

/** The tokens per second of each job in its last reports; each report counts once. */
export class Trends {
  readonly #seen = new Map<string, { at: string; values: number[] }>()

  add(rows: readonly Row[]): void {
    for (const { uid, status } of rows) {
      const { tokensPerSecond, observedTime } = status.throughput ?? {}
      if (tokensPerSecond === undefined || observedTime === undefined) continue
      const before = this.#seen.get(uid)
      if (before?.at === observedTime) continue
      this.#seen.set(uid, { at: observedTime, values: [...(before?.values ?? []), tokensPerSecond].slice(-KEPT) })
    }
  }

  /** One bar per report, scaled from 0 to the largest value. */
  of(uid: string): string {
    const values = this.#seen.get(uid)?.values ?? []
    const most = Math.max(1, ...values)
    return values.map(value => BARS[Math.round((value / most) * (BARS.length - 1))]).join('')
  }
}

/** A figure counts as old after this many missed reports. */
const SILENT_INTERVALS = 4

const speed = ({ status }: Row) => (status.state === 'Running' ? (status.throughput?.tokensPerSecond ?? 0) : -1)

export function topTable(rows: readonly Row[], shown: Shown): string {
  if (rows.length === 0)
    return shown.namespaces
      ? 'there are no ScMoEJobs'
      : `there are no ScMoEJobs in namespace ${shown.where}; -A shows all`
  const sorted = rows.toSorted((a, b) => speed(b) - speed(a) || (a.name < b.name ? -1 : 1))
  const head = ['NAME', 'STATE', 'READY', 'STEP', 'TOK/S', 'PER RANK', 'OVERLAP', 'LOSS', 'LEFT']
  const table = [
    [...(shown.namespaces ? ['NAMESPACE'] : []), ...head, ...(shown.trends ? ['TREND'] : [])],
    ...sorted.map(row => [
      ...(shown.namespaces ? [row.namespace] : []),
      ...cells(row, shown.now),
      ...(shown.trends ? [shown.trends.of(row.uid)] : []),
    ]),
  ]
  return [
    ...aligned(
      table.map(row => row.map(plainText)),
      shown.style,
    ),
    '',
    summary(sorted),
  ].join('\n')
}

function cells(row: Row, now: number): string[] {
  const { name, status, replicas } = row
  const { progress, throughput, workers } = status
  const age = (now - Date.parse(throughput?.observedTime ?? '')) / 1000
  const runs = status.state === 'Running'
  // Without an estimate the figures are of an earlier attempt, which has done no step since.
  const isPresent = runs && age <= SILENT_INTERVALS * row.interval && progress?.estimatedRemainingSeconds !== undefined
  const figure = (value: number | undefined, unit = '') => (value === undefined ? '-' : `${value}${unit}`)
  return [
    name,
    status.state ?? '-',
    `${workers?.ready ?? 0}/${workers?.desired ?? replicas ?? '?'}`,
    progress ? `${progress.step}/${progress.totalSteps}` : '-',
    `${figure(throughput?.tokensPerSecond)}${isPresent || Number.isNaN(age) ? '' : ` (${duration(age)} ago)`}`,
    figure(throughput?.tokensPerSecondPerRank),
    figure(throughput?.overlapPercent, ' %'),
    progress?.lossMilli === undefined ? '-' : nats(progress.lossMilli),
    runs && progress?.estimatedRemainingSeconds !== undefined ? duration(progress.estimatedRemainingSeconds) : '-',
  ]
}

const COLOURS: Partial<Record<State, Format>> = { Running: 'green', Restarting: 'yellow', Failed: 'red' }

function aligned(table: readonly (readonly string[])[], style: Style): string[] {
  const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map(row => row[column]?.length ?? 0)))
  return table.map((row, index) => {
    const text = row
      .map((cell, column) => painted(cell, cell.padEnd(widths[column] ?? 0), style))
      .join('  ')
      .trimEnd()
    return index === 0 ? style('bold', text) : text
  })
}

function painted(cell: string, padded: string, style: Style): string {
  const colours: Readonly<Record<string, Format>> = COLOURS
  const colour = Object.hasOwn(colours, cell) ? colours[cell] : undefined
  return colour ? style(colour, padded) : padded
}

/** e.g. `2 Running, 1 Failed; 24103 tokens/s`. */
function summary(rows: readonly Row[]): string {
  const counts = new Map<string, number>()
  for (const { status } of rows) counts.set(status.state ?? 'unseen', (counts.get(status.state ?? 'unseen') ?? 0) + 1)
  const total = rows.reduce((sum, row) => sum + Math.max(0, speed(row)), 0)
  return `${[...counts].map(([state, count]) => `${count} ${state}`).join(', ')}; ${total} tokens/s`
}

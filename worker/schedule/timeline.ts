// Draws a schedule as text for a person: two rows for each unit and phase, to scale.
//
//   rank 0 of 2   ScMoE   shortcut K=2, backward K=2, 1 chunk   predicted 774 ms   hidden 100 %
//
//   unit 1 forward, predicted 31.4 ms
//   compute |attention ----|gate|enc|MLP ----------|experts ----|attention -----|SE ------|dec|
//   comm                        |dispatch ----|                 |combine ----|

import type { Part, Scheduled, ScheduledOp } from '../program/program.ts'
import { overlap } from './overlap.ts'
import type { Spans } from './types.ts'

interface TimelineOptions {
  /** Model and schedule, e.g. `ScMoE   shortcut K=2, backward K=2, 1 chunk`. */
  title: string
  rank: number
  worldSize: number
  predicted: Spans
  /** Drawn instead of the prediction if it is known. */
  measured?: Spans
  /** Characters in a line, with the name of the row. */
  width?: number
  /** Units to draw; all by default. */
  units?: readonly number[]
}

const NAME: Partial<Record<Part, string>> = {
  attn0: 'attention',
  attn1: 'attention',
  mlp: 'MLP',
  shared: 'SE',
  encode: 'enc',
  decode: 'dec',
  reduce: 'sum',
}
const MARGIN = 8
const DEFAULT_WIDTH = 120
/** Share of the run. After a longer gap than this, an op gets a bar of its own. */
const LEAST_GAP = 0.002

/** Consecutive ops of the same part and chunk on one queue. */
interface Bar {
  name: string
  start: number
  end: number
}

export function timeline(scheduled: Scheduled, options: TimelineOptions): string {
  const { title, rank, worldSize, predicted, measured } = options
  const spans = measured ?? predicted
  const head = [`rank ${rank} of ${worldSize}`, title, `predicted ${milliseconds(totalOf(predicted))}`]
  if (measured) head.push(`measured ${milliseconds(totalOf(measured))}`)
  head.push(`hidden ${Math.round(overlap(scheduled, spans).hiddenPercent)} %`)
  const blocks = groups(scheduled.ops)
    .filter(({ unit }) => options.units?.includes(unit) ?? true)
    .map(group => block(scheduled.ops, options, group))
  return [head.join('   '), ...blocks].join('\n\n')
}

interface Group {
  unit: number
  phase: string
  members: number[]
}

/** Compute ops by unit and phase, in the order in which they run. */
function groups(ops: readonly ScheduledOp[]): Group[] {
  const found = new Map<string, Group>()
  for (const [index, { queue, segment }] of ops.entries()) {
    if (queue !== 'compute' || segment.unit < 0) continue
    const key = `unit ${segment.unit} ${segment.phase}`
    const group = found.get(key) ?? { unit: segment.unit, phase: segment.phase, members: [] }
    group.members.push(index)
    found.set(key, group)
  }
  return [...found.values()]
}

function block(ops: readonly ScheduledOp[], options: TimelineOptions, { unit, phase, members }: Group): string {
  const { predicted, measured, width = DEFAULT_WIDTH } = options
  const spans = measured ?? predicted
  const limits = ({ start, end }: Spans) => ({ begin: start[members[0] ?? 0] ?? 0, end: end[members.at(-1) ?? 0] ?? 0 })
  const took = (of: Spans) => milliseconds(limits(of).end - limits(of).begin)
  const { begin, end } = limits(spans)
  const within = (index: number) => (spans.end[index] ?? 0) > begin && (spans.start[index] ?? 0) < end
  const comm = ops.flatMap((op, index) => (op.queue === 'comm' && within(index) ? [index] : []))
  const window = { begin, end, width: width - MARGIN }
  const rows = [
    `unit ${unit} ${phase}, predicted ${took(predicted)}${measured ? `, measured ${took(measured)}` : ''}`,
    'compute'.padEnd(MARGIN) + draw(bars(ops, spans, members), window),
    'comm'.padEnd(MARGIN) + draw(bars(ops, spans, comm), window),
  ]
  return rows.map(row => row.trimEnd()).join('\n')
}

function bars(ops: readonly ScheduledOp[], spans: Spans, members: readonly number[]): Bar[] {
  const gap = LEAST_GAP * totalOf(spans)
  const result: Bar[] = []
  let last = ''
  for (const index of members) {
    const op = ops[index]
    if (!op) continue
    const { part, unit } = op.segment
    const chunk = Number(op.attrs['chunks'] ?? 1) > 1 ? ` ${op.attrs['chunk']}` : ''
    const name = (NAME[part] ?? part) + chunk
    const key = `${unit} ${part}${chunk}`
    const { start, end } = { start: spans.start[index] ?? 0, end: spans.end[index] ?? 0 }
    const open = result.at(-1)
    if (open && key === last && start - open.end <= gap) open.end = end
    else result.push({ name, start, end })
    last = key
  }
  return result
}

function draw(list: readonly Bar[], window: { begin: number; end: number; width: number }): string {
  const row = Array.from({ length: window.width }, () => ' ')
  const scale = (window.width - 1) / Math.max(window.end - window.begin, Number.MIN_VALUE)
  const column = (time: number) =>
    Math.round(Math.min(Math.max(time - window.begin, 0), window.end - window.begin) * scale)
  for (const { name, start, end } of list) {
    const [from, to] = [column(start), column(end)]
    const inside = Math.max(0, to - from - 1)
    const text = name.length < inside ? `${name} `.padEnd(inside, '-') : name.slice(0, inside)
    row.splice(from, inside + 2, ...`|${text}|`.split(''))
  }
  return row.slice(0, window.width).join('')
}

const totalOf = ({ end }: Spans) => end.reduce((latest, time) => Math.max(latest, time), 0)

/** In milliseconds, or in the larger unit in which a long time is easily read. */
function milliseconds(microseconds: number): string {
  const value = microseconds / 1000
  const [unit, size]: [string, number] = value < 10_000 ? ['ms', 1] : value < 600_000 ? ['s', 1000] : ['min', 60_000]
  const shown = value / size
  return `${shown >= 100 ? shown.toFixed(0) : shown.toPrecision(3)} ${unit}`
}

// The picture of the two lanes as SVG text. The same input gives the same bytes. Pure.

import type { Bar, Lanes, Work } from './lanes-trace.ts'

export interface Panel {
  title: string
  lanes: Lanes
}

const WIDTH = 800
const MARGIN = { left: 112, right: 16 }
const LANE = { height: 34, gap: 6 }
const PANEL = { heading: 30, axis: 26 }
const HEAD = 44
const LEGEND = { height: 80, entries: 4 }
const FONT = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'
/** Average width of a character, as a share of the font size. */
const CHARACTER = 0.56
const TEXT_SIZE = 12

const WORKS: readonly { work: Work; name: string; fill: string; text: string }[] = [
  { work: 'attention', name: 'attention', fill: '#4c78a8', text: '#ffffff' },
  { work: 'mlp', name: 'MLP', fill: '#72b7b2', text: '#1b1f24' },
  { work: 'experts', name: 'experts', fill: '#f2b441', text: '#1b1f24' },
  { work: 'shared', name: 'shared expert', fill: '#54a24b', text: '#ffffff' },
  { work: 'routing', name: 'gate, encode, decode', fill: '#9a8fb8', text: '#1b1f24' },
  { work: 'dispatch', name: 'dispatch (all-to-all)', fill: '#d6453d', text: '#ffffff' },
  { work: 'combine', name: 'combine (all-to-all)', fill: '#e5867f', text: '#1b1f24' },
  { work: 'sums', name: 'sums of gradients', fill: '#8c8c8c', text: '#ffffff' },
]
const IDLE = '#eceff3'
/**
 * A transfer that waits for the other rank is pale; the legend shows it in the colour of dispatch.
 */
const PALE = 0.25
const WAITING = '#d6453d'

/** All panels have the same scale, which the longest of them fills. */
export function drawLanes(panels: readonly Panel[], caption: string): string {
  const longest = Math.max(...panels.map(({ lanes }) => lanes.duration))
  const scale = { perMicrosecond: (WIDTH - MARGIN.left - MARGIN.right) / longest, tick: tickOf(longest) }
  const panelHeight = PANEL.heading + 2 * (LANE.height + LANE.gap) + PANEL.axis
  const height = HEAD + panels.length * panelHeight + LEGEND.height
  const drawn = panels.flatMap((panel, index) => drawPanel(panel, { top: HEAD + index * panelHeight, scale }))
  const bars = panels.flatMap(({ lanes }) => [...lanes.compute, ...lanes.comm])
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" ${FONT}>`,
    `<title>${escaped(caption)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text({ x: 16, y: 27, size: 15, bold: true }, caption),
    ...drawn,
    ...legend(bars, height - LEGEND.height + 14),
    '</svg>',
    '',
  ].join('\n')
}

/** Pixels per microsecond, and microseconds between two ticks of the axis. */
interface Scale {
  perMicrosecond: number
  tick: number
}

function drawPanel({ title, lanes }: Panel, { top, scale }: { top: number; scale: Scale }): string[] {
  const { duration, transfers, hiddenPercent } = lanes
  const figures = `${milliseconds(duration)}; ${milliseconds(transfers)} of communication, ${hiddenPercent.toFixed(0)} % hidden`
  const rows = [
    { name: 'compute', bars: lanes.compute },
    { name: 'communication', bars: lanes.comm },
  ]
  const bottom = top + PANEL.heading + rows.length * (LANE.height + LANE.gap)
  return [
    text({ x: 16, y: top + 18, size: 13, bold: true }, title),
    text({ x: WIDTH - MARGIN.right, y: top + 18, size: TEXT_SIZE, anchor: 'end' }, figures),
    ...rows.flatMap(({ name, bars }, index) => {
      const y = top + PANEL.heading + index * (LANE.height + LANE.gap)
      return [
        text({ x: MARGIN.left - 8, y: y + LANE.height / 2 + 4, size: TEXT_SIZE, anchor: 'end' }, name),
        rect({ x: MARGIN.left, y, width: duration * scale.perMicrosecond }, IDLE),
        ...bars.flatMap(bar => drawBar(bar, { y, scale: scale.perMicrosecond })),
      ]
    }),
    ...axis(duration, { y: bottom, scale }),
  ]
}

function drawBar(bar: Bar, { y, scale }: { y: number; scale: number }): string[] {
  const { fill, text: colour } = WORKS.find(({ work }) => work === bar.work) ?? { fill: IDLE, text: '#1b1f24' }
  const x = MARGIN.left + (bar.start + bar.waited) * scale
  const width = (bar.end - bar.start - bar.waited) * scale
  const waits =
    bar.waited * scale >= 1 ? [rect({ x: x - bar.waited * scale, y, width: bar.waited * scale }, fill, PALE)] : []
  const label = labelFor(bar.name, width)
  const middle = { x: x + width / 2, y: y + LANE.height / 2 + 4, size: TEXT_SIZE, anchor: 'middle', colour } as const
  return [...waits, rect({ x, y, width }, fill), ...(label === '' ? [] : [text(middle, label)])]
}

/** The name if it fits into the bar, otherwise its first word, otherwise nothing. */
function labelFor(name: string, width: number): string {
  const fits = (words: string) => words.length * CHARACTER * TEXT_SIZE + 4 <= width
  return [name, name.split(' ')[0] ?? ''].find(fits) ?? ''
}

function axis(duration: number, { y, scale }: { y: number; scale: Scale }): string[] {
  const { perMicrosecond, tick } = scale
  return Array.from({ length: Math.floor(duration / tick) + 1 }, (_, index) => {
    const x = MARGIN.left + index * tick * perMicrosecond
    const words = index === 0 ? '0 ms' : String((index * tick) / 1000)
    return [
      `<line x1="${px(x)}" x2="${px(x)}" y1="${px(y - LANE.gap)}" y2="${px(y)}" stroke="#8a929c"/>`,
      text({ x, y: y + 12, size: 10, anchor: index === 0 ? 'start' : 'middle', colour: '#57606a' }, words),
    ].join('\n')
  })
}

/** A round number of microseconds, of which four to ten fit into the longest panel. */
function tickOf(duration: number): number {
  const power = 10 ** Math.floor(Math.log10(duration / 4))
  return [5, 2, 1].map(step => step * power).find(step => duration / step >= 4) ?? power
}

function legend(bars: readonly Bar[], top: number): string[] {
  const used = new Set(bars.map(({ work }) => work))
  const waits = bars.some(({ waited }) => waited > 0)
  const entries = [
    ...WORKS.filter(({ work }) => used.has(work)).map(entry => ({ ...entry, opacity: 1 })),
    ...(waits ? [{ name: 'waits for the other rank', fill: WAITING, opacity: PALE }] : []),
    { name: 'queue is idle', fill: IDLE, opacity: 1 },
  ]
  const width = (WIDTH - 32) / LEGEND.entries
  return entries.flatMap(({ name, fill, opacity }, index) => {
    const x = 16 + (index % LEGEND.entries) * width
    const y = top + Math.floor(index / LEGEND.entries) * 20
    return [
      `<rect x="${px(x)}" y="${px(y)}" width="14" height="12" rx="2" fill="${fill}"${opacityOf(opacity)}/>`,
      text({ x: x + 20, y: y + 10, size: TEXT_SIZE }, name),
    ]
  })
}

const opacityOf = (opacity: number) => (opacity < 1 ? ` fill-opacity="${opacity}"` : '')

const rect = ({ x, y, width }: { x: number; y: number; width: number }, fill: string, opacity = 1) =>
  `<rect x="${px(x)}" y="${px(y)}" width="${px(width)}" height="${LANE.height}" fill="${fill}"${opacityOf(opacity)}/>`

interface Style {
  x: number
  y: number
  size: number
  bold?: boolean
  anchor?: 'start' | 'middle' | 'end'
  colour?: string
}

const text = ({ x, y, size, bold = false, anchor = 'start', colour = '#1b1f24' }: Style, words: string) =>
  `<text x="${px(x)}" y="${px(y)}" font-size="${size}"${bold ? ' font-weight="600"' : ''} text-anchor="${anchor}" fill="${colour}">${escaped(words)}</text>`

const px = (value: number) => value.toFixed(1)
const milliseconds = (microseconds: number) => `${(microseconds / 1000).toFixed(microseconds < 100_000 ? 1 : 0)} ms`
const escaped = (words: string) => words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

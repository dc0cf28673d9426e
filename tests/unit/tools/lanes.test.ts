// Tests of the picture that `npm run docs:lanes` draws, from parts of two recorded traces: top-2
// experts in sequential order, and ScMoE with the shortcut.

import { parseHTML } from 'linkedom'
import { describe, expect, it } from 'vitest'
import { drawLanes } from '../../../tools/docs/lanes-drawing.ts'
import { lanesOf } from '../../../tools/docs/lanes-trace.ts'
import traces from './lanes-traces.json' with { type: 'json' }

const PART = { unit: 1, phase: 'forward' } as const
const sequential = lanesOf(JSON.stringify(traces.sequential), PART)
const shortcut = lanesOf(JSON.stringify(traces.shortcut), PART)

describe('the lanes of a trace', () => {
  it('are named blocks in the order in which they ran', () => {
    const names = (lanes: typeof sequential) => lanes.compute.map(({ name }) => name).join(', ')
    expect(names(sequential)).toBe('Attention, MLP, Attention, Gate, Encode, Experts, Decode')
    expect(names(shortcut)).toBe('Attention, Gate, Encode, MLP, Attention, Experts, Shared expert, Decode')
    for (const { comm } of [sequential, shortcut])
      expect(comm.map(({ name }) => name)).toEqual(expect.arrayContaining(['Dispatch', 'Combine']))
  })

  it('say how much of the communication runs beside computation', () => {
    expect(sequential.hiddenPercent).toBeLessThan(1)
    expect(shortcut.hiddenPercent).toBeGreaterThan(95)
    expect(sequential.transfers).toBeGreaterThan(0)
  })

  it('are those of the last run of a program that runs once per micro-batch', () => {
    const { traceEvents: events } = traces.sequential
    const later = events.map(event => ({ ...event, ts: event.ts + 1e6, dur: event.dur / 2 }))
    const last = lanesOf(JSON.stringify({ traceEvents: [...events, ...later] }), PART)
    expect(last).toEqual(lanesOf(JSON.stringify({ traceEvents: later }), PART))
  })

  it('cannot be drawn of a unit that the trace does not have', () => {
    expect(() => lanesOf(JSON.stringify(traces.sequential), { unit: 7, phase: 'forward' })).toThrow(
      'the trace has no unit 7 in phase forward',
    )
  })
})

describe('the picture', () => {
  const panels = [
    { title: 'Top-2 experts, sequential', lanes: sequential },
    { title: 'ScMoE, shortcut', lanes: shortcut },
  ]
  const svg = drawLanes(panels, 'One unit & its lanes')
  const { document } = parseHTML(`<html><body>${svg}</body></html>`)
  const rects = [...document.querySelectorAll('rect')].map(each =>
    Object.fromEntries(['x', 'y', 'width', 'height'].map(name => [name, Number(each.getAttribute(name) ?? 0)])),
  )

  it('is the same text each time, and no part leaves its frame', () => {
    expect(drawLanes(panels, 'One unit & its lanes')).toBe(svg)
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox="0 0 800 /)
    const [frame] = rects
    for (const { x = 0, y = 0, width = 0, height = 0 } of rects) {
      expect(x + width).toBeLessThanOrEqual(frame?.['width'] ?? 0)
      expect(y + height).toBeLessThanOrEqual(frame?.['height'] ?? 0)
    }
  })

  it('draws both runs at the same scale', () => {
    // The background of a lane is as long as its unit took.
    const lanes = rects.filter(({ x, height }) => x === 112 && height === 34)
    const widths = [...new Set(lanes.map(({ width }) => width ?? 0))].toSorted((a, b) => b - a)
    const longest = widths[0] ?? 0
    const other = widths.find(width => Math.abs(width / longest - shortcut.duration / sequential.duration) < 0.001)
    expect(longest).toBeCloseTo(800 - 112 - 16, 0)
    expect(other).toBeDefined()
  })

  it('names titles, queues, large blocks and every colour that it uses', () => {
    const words = [...document.querySelectorAll('text')].map(each => each.textContent ?? '')
    expect(words).toEqual(
      expect.arrayContaining([
        'One unit & its lanes',
        'Top-2 experts, sequential',
        'ScMoE, shortcut',
        'compute',
        'communication',
        'Experts',
        'MLP',
        'dispatch (all-to-all)',
        'combine (all-to-all)',
        'queue is idle',
      ]),
    )
    expect(words).not.toContain('sums of gradients')
  })
})

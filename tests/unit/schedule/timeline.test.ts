// Tests of the drawing of a schedule.

import { describe, expect, it } from 'vitest'
import { emitTrain } from '../../../worker/emit/emit.ts'
import { makespan, schedule, timeline } from '../../../worker/schedule/schedule.ts'
import { configOf } from '../../support/program-arbitraries.ts'

const PARTS: Record<string, number> = {
  attn0: 12,
  gate: 2,
  encode: 2,
  mlp: 20,
  experts: 16,
  attn1: 18,
  shared: 20,
  decode: 2,
}

function drawing(width: number, factor = 1) {
  const emitted = emitTrain(
    configOf({ kind: 'ScMoE', topK: 1, units: 2, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 }),
    0,
  )
  const perPart = (part: string, phase: string) =>
    emitted.ops.filter(op => op.segment.unit === 0 && op.segment.part === part && op.segment.phase === phase).length
  const times = Float64Array.from(emitted.ops, ({ op, segment }) => {
    if (op === 'all_to_all') return 15_000
    return segment.unit < 0 ? 0 : (1000 * (PARTS[segment.part] ?? 0)) / perPart(segment.part, segment.phase)
  })
  const profile = { times: [times], contention: 0, latency: 0 }
  const scheduled = schedule(emitted, { strategy: 'Shortcut', forwardSlot: 2, backwardSlot: 2, chunks: 1 }, profile)
  const predicted = makespan(scheduled, emitted, profile)
  const scaled = (list: Float64Array) => list.map(time => time * factor)
  const measured = { start: scaled(predicted.start), end: scaled(predicted.end) }
  const options = { title: 'ScMoE', rank: 0, worldSize: 2, predicted, width, units: [0] }
  return timeline(scheduled, factor === 1 ? options : { ...options, measured })
}

describe('timeline', () => {
  it('draws what computes above what travels, to scale', () => {
    expect(drawing(100)).toMatchInlineSnapshot(`
      "rank 0 of 2   ScMoE   predicted 368 ms   hidden 100 %

      unit 0 forward, predicted 92.0 ms
      compute |attention -|g|e|MLP ---------------|experts ------|attention -------|SE ----------------|d|
      comm                  |||dispatch -----|                   |combine ------|

      unit 0 backward, predicted 92.0 ms
      compute |d|SE ----------------|experts -------|attention ------|MLP ---------------|e|g|attention -|
      comm      |combine ------||                   |dispatch ----|| ||     ||           ||  ||  ||"
    `)
  })

  it('keeps every line within the width it is given', () => {
    for (const width of [40, 80, 160])
      for (const line of drawing(width).split('\n').slice(1)) expect(line.length).toBeLessThanOrEqual(width)
  })

  it('shows the measured step beside the predicted one', () => {
    expect(drawing(80, 2).split('\n')[0]).toMatch(
      /^rank 0 of 2 {3}ScMoE {3}predicted \d+ ms {3}measured \d+ ms {3}hidden 100 %$/,
    )
  })
})

// Tests of the figures that benchmarks write beside their rows.

import { describe, expect, it } from 'vitest'
import { figuresOf, type Line } from '../../../bench/overlap/figures.ts'
import { figuresOfLosses } from '../../../bench/quality/statistics.ts'

const NOTHING = { hiddenPercent: 99, commShareOfMoe: 0.6, skewPercent: 0, exposedReducePercent: 0, commCpuPercent: 0 }

/** A line of a table with the times of its rounds, where sequential Top2 takes 160 ms in each. */
function line(model: Line['model'], strategy: string, times: number[], more: Partial<Line> = {}): Line {
  const rounds = times.map(milliseconds => {
    return { milliseconds, ratioToTop2: 160 / milliseconds, ratioToBound: 95 / milliseconds, hiddenPercent: 99 }
  })
  return {
    ...NOTHING,
    regime: 60,
    phase: 'train',
    kind: model,
    position: null,
    strategy,
    slot: null,
    chunks: null,
    tokensPerSecond: 1,
    predictedOverMeasured: 1.02,
    flopBound: 2,
    boundToTop2: 1.7,
    ratioToTop2: 1,
    ratioToBound: 1,
    schedule: strategy,
    model,
    rounds,
    ...more,
  }
}

describe('the figures of bench:overlap', () => {
  const lines = [
    line('Top2', 'Sequential', [160, 160, 160]),
    line('Top2', 'Pipelined', [120, 122, 118]),
    line('ScMoE Pos-2', 'Auto', [100, 102, 98]),
    line('ScMoE Pos-2', 'Shortcut', [99, 101, 97], { slot: 3 }),
  ]
  const figures = figuresOf(lines)
  const named = (name: string) => figures.find(figure => figure.name === `60 %, train: ${name}`)

  it('compare the proposed model with the aims of their regime', () => {
    expect(named('times as fast as sequential Top2')).toMatchObject({ value: 1.6, aim: '>= 1.6', met: true })
    expect(named('hidden')).toMatchObject({ value: 99, unit: '%', aim: '>= 97', met: true })
    expect(named('of its speed without transfers')).toMatchObject({ value: 0.95, aim: '>= 0.97', met: false })
    expect(named('error of prediction')).toMatchObject({ aim: '<= 0.1', met: true })
  })

  it('have intervals over the rounds', () => {
    const figure = named('over pipelined Top2')
    expect(figure).toMatchObject({ value: 1.2, aim: '> 1', met: true })
    expect(figure?.low).toBeGreaterThan(1.1)
    expect(figure?.high).toBeLessThan(1.3)
    expect(figure?.low).toBeLessThanOrEqual(figure?.value ?? 0)
  })

  it('leave out models that were not measured', () => {
    expect([named('over SharedExpert'), named('over sequential Top1')]).toEqual([undefined, undefined])
    expect(figuresOf(lines.slice(0, 2))).toEqual([])
  })
})

it('the figures of bench:quality are differences of losses with seeds as samples', () => {
  const run = (kind: string, seed: number, evaluationLoss: number) => ({ job: { kind, seed }, evaluationLoss })
  const runs = [run('Top2', 1, 2), run('Top2', 2, 2.2), run('ScMoE', 1, 1.9), run('ScMoE', 2, 2.0), run('Dense', 9, 1)]
  const figures = figuresOfLosses(runs, 'Top2')
  expect(figures.map(({ name }) => name)).toEqual(['held-out loss, ScMoE less Top2'])
  expect(figures[0]?.value).toBeCloseTo(-0.15)
  expect(figures[0]).toMatchObject({ unit: 'nats', aim: null, met: null })
  expect(figures[0]?.low).toBeCloseTo(-0.2)
  expect(figures[0]?.high).toBeCloseTo(-0.1)
})

import { describe, expect, it } from 'vitest'
import { disturbance } from '../../../bench/versions/load.ts'
import { figuresOf, ratiosOf } from '../../../bench/versions/ratios.ts'

describe('figures of a benchmark', () => {
  const result = {
    bench: 'step',
    alone: { tokensPerSecond: 5, parts: [{ op: 'linear', milliseconds: 1 }] },
    rows: [
      { hidden: 256, kind: 'ScMoE', strategy: 'Auto', schedule: 'K=3', tokensPerSecond: 7 },
      { hidden: 512, kind: 'ScMoE', strategy: 'Auto', schedule: 'K=2', tokensPerSecond: 8 },
    ],
  }

  it('are found by their key and named by the settings of their row, not by what was chosen there', () => {
    expect([...figuresOf(result, /tokensPerSecond/)]).toEqual([
      ['alone tokensPerSecond', 5],
      ['256 ScMoE Auto tokensPerSecond', 7],
      ['512 ScMoE Auto tokensPerSecond', 8],
    ])
  })
})

describe('ratios', () => {
  const pair = (before: number, after: number) => ({ before: new Map([['a', before]]), after: new Map([['a', after]]) })

  it('are taken pair by pair, so that a drift of the machine cancels', () => {
    const [ratio] = ratiosOf([pair(10, 11), pair(20, 22), pair(40, 44)])
    expect(ratio?.ratio).toBeCloseTo(1.1)
    expect(ratio?.low).toBeCloseTo(1.1)
    expect(ratio?.high).toBeCloseTo(1.1)
    expect(ratio?.before).toBe(20)
  })

  it('have an interval that is wide where pairs differ', () => {
    const [ratio] = ratiosOf([pair(10, 8), pair(10, 12), pair(10, 10), pair(10, 10)])
    expect(ratio?.low).toBeLessThan(0.95)
    expect(ratio?.high).toBeGreaterThan(1.05)
  })

  it('leave out a figure that one run does not have', () => {
    expect(ratiosOf([pair(1, 1), { before: new Map(), after: new Map([['a', 1]]) }])).toEqual([])
  })
})

it('what others took of the machine is what was busy without this process and its children', () => {
  expect(disturbance({ busy: 0, total: 0, own: 0 }, { busy: 60, total: 100, own: 50 })).toBeCloseTo(0.1)
  expect(disturbance({ busy: 0, total: 0, own: 0 }, { busy: 50, total: 100, own: 60 })).toBe(0)
})

import { describe, expect, it } from 'vitest'
import { figuresOf, figuresOfRatios, ratiosOf } from '../../../bench/versions/ratios.ts'

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

  it('are figures whose aim is missed only if the whole interval lies below 0.98', () => {
    const figures = (...after: number[]) => figuresOfRatios(ratiosOf(after.map(value => pair(10, value))))
    expect(figures(9, 10.4, 9.1)).toMatchObject([{ name: 'a, new over old', unit: 'x', met: true }])
    expect(figures(9, 9.2, 9.1)).toMatchObject([{ met: false }])
  })

  it('leave out a figure that one run does not have', () => {
    expect(ratiosOf([pair(1, 1), { before: new Map(), after: new Map([['a', 1]]) }])).toEqual([])
  })
})

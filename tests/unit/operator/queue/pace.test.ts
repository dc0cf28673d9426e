import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { Pace } from '../../../../operator/api/pace.ts'

/** Milliseconds until the next write, which is then sent. */
function send(pace: Pace, now: number): number {
  const wait = pace.wait(now)
  pace.take(now + wait)
  return wait
}

it('lets as many go at once as allowed, and then one after another', () => {
  const pace = new Pace({ perSecond: 10, atOnce: 3 })
  expect([0, 0, 0, 0, 100].map(now => send(pace, now))).toEqual([0, 0, 0, 100, 100])
  expect(send(pace, 1000)).toBe(0)
})

it('never lets more go in any span than its length allows, and keeps nobody back without need', () => {
  const gaps = fc.array(fc.integer({ min: 0, max: 500 }), { minLength: 1, maxLength: 60 })
  fc.assert(
    fc.property(gaps, fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 8 }), (steps, perSecond, atOnce) => {
      const pace = new Pace({ perSecond, atOnce })
      let now = 0
      const gone = steps.map(step => {
        now += step
        now += send(pace, now)
        return now
      })
      for (const [i, from] of gone.entries())
        for (const [j, to] of gone.entries())
          if (j >= i) expect(j - i + 1).toBeLessThanOrEqual(atOnce + ((to - from) * perSecond) / 1000 + 1e-6)
      const idle = new Pace({ perSecond, atOnce })
      for (let i = 0; i < atOnce; i++) expect(send(idle, 5)).toBeCloseTo(0, 6)
    }),
  )
})

// Tests of the API server's time, as seen through answers of which some may be wrong, and of what
// waits for a second look at it.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Clock } from '../../../operator/api/clock.ts'
import { BETWEEN_LOOKS_MILLISECONDS, confirmed } from '../../../operator/confirm.ts'

const HOUR = 3_600_000
const T0 = Date.parse('2026-01-01T12:00:00Z')

/** A machine and a server. Both have right clocks unless a test changes one. */
function machine() {
  const time = { passed: 1000, wall: 0, server: 0 }
  const clock = new Clock({ wall: () => T0 + time.passed + time.wall, steady: () => time.passed })
  const answer = (ahead = 0) => {
    const sent = time.passed
    time.passed += 20
    clock.learn(new Date(Math.floor((T0 + time.passed + time.server + ahead) / 1000) * 1000).toUTCString(), sent)
    time.passed += 100
  }
  const error = () => clock.now() - (T0 + time.passed + time.server)
  return { time, clock, answer, error }
}

describe("the server's time", () => {
  it("is this machine's while both agree, to the millisecond", () => {
    const { answer, error } = machine()
    for (let i = 0; i < 10; i++) answer()
    expect(error()).toBe(0)
  })

  // Seen failing with the last answer alone believed.
  it('is right while up to a third of the answers are hours off, in any order', () => {
    const property = fc.property(fc.array(fc.constantFrom(0, 0, 2), { minLength: 60, maxLength: 200 }), hours => {
      fc.pre(hours.slice(-60).filter(each => each !== 0).length <= 24)
      const { clock, answer, time, error } = machine()
      for (const ahead of hours) answer(ahead * HOUR)
      expect(Math.abs(error())).toBeLessThan(2100)
      expect(clock.least()).toBeLessThanOrEqual(T0 + time.passed)
    })
    fc.assert(property, { numRuns: 200 })
  })

  it('is not ahead by the careful clock even if the first answers are', () => {
    const { clock, answer, time } = machine()
    for (const ahead of [2, 0, 2, 2, 0, 2]) answer(ahead * HOUR)
    expect(clock.least() - (T0 + time.passed)).toBeLessThan(2100)
  })

  it.each([1, -1])('is known where this machine is wrong by %d h, and where it jumps', hours => {
    const { time, answer, error } = machine()
    time.wall = hours * HOUR
    for (let i = 0; i < 3; i++) answer()
    expect(Math.abs(error())).toBeLessThan(2000)
    time.wall = 0
    expect(Math.abs(error())).toBeLessThan(2000)
    time.wall = -2 * hours * HOUR
    expect(Math.abs(error())).toBeLessThan(2000)
  })

  it('is learnt again when the machine has slept, during which its steady clock stood still', () => {
    const { time, answer, error } = machine()
    for (let i = 0; i < 100; i++) answer()
    time.wall += HOUR
    time.server += HOUR
    time.passed += 60_000
    answer()
    expect(Math.abs(error())).toBeLessThan(2100)
  })
})

describe('what cannot be taken back', () => {
  const wanted = { actions: [], deadline: 'activeDeadlineSeconds' }
  const look = (at: number, before?: { deadline: string; at: number }, isAgreed = true) =>
    confirmed(wanted, { before, at, now: T0 + at, isAgreed })

  it('waits for a second look, seconds later', () => {
    const first = look(1000)
    expect(first).toEqual({
      plan: { actions: [], requeueAt: T0 + 1000 + BETWEEN_LOOKS_MILLISECONDS },
      look: { deadline: 'activeDeadlineSeconds', at: 1000 },
    })
    expect(look(1500, first.look).plan).not.toBe(wanted)
    expect(look(1000 + BETWEEN_LOOKS_MILLISECONDS, first.look)).toEqual({ plan: wanted })
  })

  it('waits for as long as the careful clock does not agree', () => {
    const { look: before } = look(0)
    expect(look(100_000, before, false)).toMatchObject({ plan: { actions: [], requeueAt: T0 + 101_000 }, look: before })
  })

  it('is looked at anew when another deadline is over', () => {
    expect(look(9000, { deadline: 'ttlSecondsAfterFinished', at: 0 }).look).toMatchObject({ at: 9000 })
  })

  it('is no plan that rests on more than the time', () => {
    const plan = { actions: [] }
    expect(confirmed(plan, { before: undefined, at: 0, now: T0, isAgreed: false })).toEqual({ plan })
  })
})

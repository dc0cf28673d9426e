// Tests of the learning rate over the life of a job whose steps are raised, and of what a resumed
// run says about settings that are others.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Trained } from '../../../worker/checkpoint/contents.ts'
import { WorkerFailure } from '../../../worker/failure.ts'
import { continued, type LearningRate, learningRate } from '../../../worker/train/learning-rate.ts'
import { resumption } from '../../../worker/train/resumption.ts'

/** The learning rate of each step of a job that is stopped at `at` and goes on with other steps. */
function life(first: LearningRate, legs: readonly { at: number; wanted: LearningRate }[], end: number): number[] {
  const rates: number[] = []
  let rate = first
  const rest = [...legs]
  for (let step = 0; step < end; step++) {
    if (rest[0]?.at === step) rate = continued(rate, rest.shift()?.wanted ?? rate, step)
    rates.push(learningRate(step, rate))
  }
  return rates
}

const schedule = (totalSteps: number, warmupSteps = 20, peak = 1): LearningRate => ({ peak, warmupSteps, totalSteps })

describe('the learning rate', () => {
  // Seen failing with the schedule of the raised steps alone: step 200 had 0.59e-3 after 0.1e-3.
  it('does not jump when a job of 200 steps gets 200 more', () => {
    const rates = life(schedule(200, 20, 1e-3), [{ at: 200, wanted: schedule(400, 20, 1e-3) }], 400)
    expect(rates[199]).toBeCloseTo(1e-4, 10)
    expect(rates[200]).toBeCloseTo(1e-4, 10)
    expect(rates[399]).toBeCloseTo(1e-4, 10)
  })

  it('falls from the value that it had when steps were raised half-way', () => {
    const rates = life(schedule(200), [{ at: 110, wanted: schedule(1000) }], 1000)
    expect(rates[109]).toBeCloseTo(0.55, 1)
    for (let step = 21; step < 1000; step++) expect(rates[step]).toBeLessThan(rates[step - 1] ?? 0)
    expect(rates[500]).toBeGreaterThan(0.3)
    expect(rates[999]).toBeCloseTo(0.1, 10)
  })

  it('is that of a job that had asked for all steps at once when they are raised in the warm-up', () => {
    const whole = life(schedule(500), [], 500)
    for (const at of [1, 10, 19, 20]) expect(life(schedule(100), [{ at, wanted: schedule(500) }], 500)).toEqual(whole)
  })

  it('is the same whether or not the job was restarted in between', () => {
    const raised = { at: 60, wanted: schedule(300) }
    const again = [70, 100, 250].map(at => ({ at, wanted: schedule(300) }))
    expect(life(schedule(100), [raised, ...again], 300)).toEqual(life(schedule(100), [raised], 300))
  })

  const legs = fc.array(fc.record({ after: fc.integer({ min: 1, max: 60 }), more: fc.integer({ min: 0, max: 300 }) }), {
    maxLength: 4,
  })
  // The steepest piece is the warm-up of 40 steps. Seen failing without `reached`.
  it('never moves by more than a step of the warm-up, however often steps are raised', () => {
    fc.assert(
      fc.property(legs, made => {
        let [total, at] = [400, 0]
        const changes = made.map(({ after, more }) => {
          total += more
          at += after
          return { at, wanted: schedule(total, 40) }
        })
        const rates = life(schedule(400, 40), changes, total)
        const moved = rates.map((rate, step) => Math.abs(rate - (rates[step - 1] ?? 0)))
        expect(Math.max(...moved)).toBeLessThan(1.01 / 40)
        expect(rates.at(-1)).toBeCloseTo(0.1, 10)
      }),
      { numRuns: 30 },
    )
  })

  it('goes on from the value that it had when the warm-up is another one', () => {
    const longer = life(schedule(400), [{ at: 200, wanted: schedule(400, 300) }], 400)
    expect(longer[200]).toBeGreaterThan(longer[199] ?? 0)
    expect(longer[200]).toBeLessThan((longer[199] ?? 0) + 0.01)
    expect(longer[299]).toBeCloseTo(1, 10)
    const shorter = life(schedule(400, 100), [{ at: 50, wanted: schedule(400, 10) }], 400)
    expect(shorter[50]).toBeCloseTo(shorter[49] ?? 0, 3)
  })

  it('follows another peak at once, with the same shape', () => {
    const rates = life(schedule(200), [{ at: 100, wanted: schedule(200, 20, 0.5) }], 200)
    const before = life(schedule(200), [], 200)
    for (let step = 100; step < 200; step++) expect(rates[step]).toBeCloseTo((before[step] ?? 0) / 2, 12)
  })

  it('is that of the job where an old checkpoint does not say its schedule', () => {
    expect(continued(undefined, schedule(400), 200)).toEqual(schedule(400))
  })
})

describe('a resumed run', () => {
  const data = { source: '/data/a', tokens: 'uint16', length: 1000 } as const
  const before: Trained = { data, learningRate: schedule(200) }
  const says = (change: Partial<Trained>, step = 100) => resumption(before, { ...before, ...change }, step).warnings

  it('says nothing when it is asked for the same, and nothing at the beginning', () => {
    expect(says({})).toEqual([])
    expect(says({ data: { ...data, source: '/data/b' } }, 0)).toEqual([])
  })

  it('says what is another now', () => {
    expect(says({ data: { ...data, source: '/data/b', length: 20 } })).toEqual([
      'the data changes here: until now it was /data/a (1000 uint16), from here on it is /data/b (20 uint16)',
    ])
    expect(says({ data: { ...data, length: 1200 } })).toHaveLength(1)
    expect(says({ learningRate: schedule(400, 300, 0.5) })).toEqual([
      'the learning rate changes here: its peak was 1, from here on it is 0.5',
      'warmupSteps was 20 and is 300: the learning rate goes on from the value that it had at step 100',
    ])
    expect(says({ learningRate: schedule(400) })).toEqual([
      'steps was 200 and is 400: the learning rate decays from the value that it had at step 100',
    ])
    expect(resumption(undefined, before, 100).warnings).toEqual([
      expect.stringContaining('does not say its learning rate'),
    ])
  })

  it('refuses tokens of another kind, but takes the same numbers in another width', () => {
    const bytes = () => says({ data: { ...data, tokens: 'bytes' } })
    expect(bytes).toThrow(WorkerFailure)
    expect(bytes).toThrow(/step 100 was trained on uint16 of \/data\/a, but spec\.data\.tokens is bytes/)
    expect(says({ data: { ...data, tokens: 'uint32' } })).toEqual([])
  })
})

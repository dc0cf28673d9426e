// Tests of when a run changes its schedule: after profiled steps, in a trial of close predictions,
// and when steps drift.

import { describe, expect, it } from 'vitest'
import { Rescheduler } from '../../../worker/train/rescheduler.ts'

/** Stands for profiler and programs. Two steps are profiled at first, and two after each drift. */
class Programs {
  description = 'guess'
  countdown = 2
  readonly #contenders: { schedule: string; predicted: number }[]

  constructor(schedules: readonly string[]) {
    this.#contenders = schedules.map((schedule, i) => ({ schedule, predicted: 100 + i }))
  }

  get due(): boolean {
    return this.countdown === 0
  }

  get measuring(): boolean {
    return this.countdown > 0
  }

  again(): void {
    this.countdown = 2
  }

  async profile() {
    this.countdown = -1
    return { times: [], contention: 0, latency: 0 }
  }

  choose() {
    this.use(0)
    const contenders = this.#contenders
    const measured = { labels: [], times: [], contention: 0, latency: 0 }
    return { candidates: contenders, contenders, sequentialMilliseconds: 200, measured }
  }

  use(contender: number): void {
    this.description = this.#contenders[contender]?.schedule ?? 'none'
  }
}

/** A run in which `timeOf` says how long a step takes under its schedule. */
class Run {
  readonly shown: string[] = []
  /** The schedule of each step. */
  readonly ran: string[] = []
  readonly rescheduler: Rescheduler
  readonly #programs: Programs
  readonly #timeOf: (schedule: string, step: number) => number

  constructor(schedules: readonly string[], timeOf: (schedule: string, step: number) => number) {
    this.#timeOf = timeOf
    const programs = new Programs(schedules)
    this.#programs = programs
    const record = { scheduled: (schedule: string) => void this.shown.push(schedule) }
    this.rescheduler = new Rescheduler({ profiler: programs, programs, record, log: undefined })
  }

  async steps(count: number, disturbed = false): Promise<void> {
    for (let i = 0; i < count; i++) {
      const { description } = this.#programs
      if (this.#programs.measuring) this.#programs.countdown--
      const step = this.ran.push(description)
      await this.rescheduler.follow({ step, milliseconds: this.#timeOf(description, step), disturbed })
    }
  }
}

const times = (count: number, text: string) => Array.from({ length: count }, () => text)
const TIMES: Record<string, number> = { guess: 150, a: 110, b: 104, c: 107 }
const steady = (schedule: string) => TIMES[schedule] ?? 0

describe('schedules of a run', () => {
  // Seen failing where the fastest is not loaded after the last, and where the first contender is
  // kept.
  it('try schedules with close predictions for four steps each, and go on with the fastest', async () => {
    const run = new Run(['a', 'b', 'c'], steady)
    await run.steps(20)
    expect(run.ran).toEqual([
      ...times(2, 'guess'),
      ...times(4, 'a'),
      ...times(4, 'b'),
      ...times(4, 'c'),
      ...times(6, 'b'),
    ])
    expect(run.shown).toEqual(['a', 'b', 'c', 'b'])
    expect(run.rescheduler.history.summary.plans).toEqual([
      {
        step: 2,
        schedule: 'a',
        predictedMilliseconds: 100,
        sequentialMilliseconds: 200,
        measuredMilliseconds: 110,
      },
      {
        step: 14,
        schedule: 'b',
        predictedMilliseconds: 101,
        sequentialMilliseconds: 200,
        measuredMilliseconds: 104,
      },
    ])
  })

  it('try nothing where one prediction is ahead', async () => {
    const run = new Run(['a'], steady)
    await run.steps(10)
    expect(run.ran).toEqual([...times(2, 'guess'), ...times(8, 'a')])
    expect(run.rescheduler.history.summary.plans.map(({ measuredMilliseconds }) => measuredMilliseconds)).toEqual([110])
  })

  // Seen failing where the trial takes every step.
  it('do not judge by steps beside which a checkpoint was written', async () => {
    const run = new Run(['a', 'b'], (schedule, step) => (step >= 5 && step < 10 ? 900 : steady(schedule)))
    await run.steps(4)
    await run.steps(5, true)
    await run.steps(10)
    expect(run.ran.slice(2)).toEqual([...times(9, 'a'), ...times(4, 'b'), ...times(4, 'b')])
  })

  it('measure again when steps become slower after a trial, and try again', async () => {
    const run = new Run(
      ['a', 'c'],
      (schedule, step) => steady(schedule) * (step > 40 ? (schedule === 'a' ? 1.5 : 2) : 1),
    )
    await run.steps(40)
    expect(run.shown).toEqual(['a', 'c', 'c'])
    await run.steps(20)
    expect(run.shown).toEqual(['a', 'c', 'c', 'a', 'c', 'a'])
    expect(run.ran.at(-1)).toBe('a')
  })
})

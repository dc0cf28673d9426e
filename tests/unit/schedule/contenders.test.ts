// Tests of which schedules are tried, and which of them is kept.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Candidate, type Choice, contenders, Trial } from '../../../worker/schedule/schedule.ts'

const scheduled = { name: 'train', buffers: [], ops: [] }
const candidate = (choice: Choice, predicted: number): Candidate => ({ choice, predicted, slack: 0, scheduled })
const shortcut = (forwardSlot: number, backwardSlot: number, chunks: number): Choice => {
  return { strategy: 'Shortcut', forwardSlot, backwardSlot, chunks }
}
const choicesOf = (list: readonly Candidate[]) => contenders(list).map(({ choice }) => choice)

describe('contenders', () => {
  // Seen failing with a limit of 4 % and of 2 %.
  it('are the best predicted and those of other slots within 3 % of it', () => {
    const list = [
      candidate({ strategy: 'Sequential' }, 150),
      candidate(shortcut(3, 2, 1), 102.9),
      candidate(shortcut(2, 2, 1), 100),
      candidate(shortcut(2, 3, 1), 103.1),
      candidate({ strategy: 'Pipelined', chunks: 4 }, 101),
    ]
    expect(choicesOf(list)).toEqual([shortcut(2, 2, 1), { strategy: 'Pipelined', chunks: 4 }, shortcut(3, 2, 1)])
  })

  // Seen failing with a key of all of the choice.
  it('have the best number of chunks of their slots, the fewest of equals', () => {
    const list = [
      candidate(shortcut(2, 2, 4), 100),
      candidate(shortcut(2, 2, 2), 100),
      candidate(shortcut(2, 3, 1), 101),
      candidate(shortcut(2, 3, 8), 100.5),
    ]
    expect(choicesOf(list)).toEqual([shortcut(2, 2, 2), shortcut(2, 3, 8)])
  })

  it('are four at most, and the same whatever the order of the candidates', () => {
    const slots = [1, 2, 3, 4].flatMap(forward => [1, 2, 3, 4].map(backward => [forward, backward] as const))
    const list = slots.map(([forward, backward], i) => candidate(shortcut(forward, backward, 1), 100 + i / 8))
    const best = slots.slice(0, 4).map(([forward, backward]) => shortcut(forward, backward, 1))
    fc.assert(
      fc.property(fc.shuffledSubarray(list, { minLength: list.length }), shuffled => {
        expect(choicesOf(shuffled)).toEqual(best)
      }),
    )
  })
})

/** The contender of each step, and the one that is kept in the end. */
function tried(count: number, timeOf: (contender: number, step: number) => number) {
  const trial = new Trial(count)
  const order: number[] = []
  while (!trial.over) {
    order.push(trial.current)
    trial.observe(timeOf(trial.current, order.length))
  }
  return { order, best: trial.best, medians: trial.medians }
}

describe('a trial', () => {
  it('has a step to warm up and three that count for each contender', () => {
    const { order, medians } = tried(2, (contender, step) => 100 * contender + step)
    expect(order).toEqual([0, 0, 0, 0, 1, 1, 1, 1])
    expect(medians).toEqual([3, 107])
  })

  // Seen failing without the first step left out, and with the mean for the median.
  it('is not decided by a slow first step, nor by one that was disturbed', () => {
    const slow = new Map([
      [5, 900],
      [7, 900],
    ])
    expect(tried(2, (contender, step) => slow.get(step) ?? [100, 90][contender] ?? 0).best).toBe(1)
  })

  // Seen failing with a gain of 0 and of 2 %.
  it('takes another than the best predicted only where that is faster by more than 1 %', () => {
    expect(tried(3, contender => [100, 99.1, 99.5][contender] ?? 0).best).toBe(0)
    expect(tried(3, contender => [100, 98.9, 99.5][contender] ?? 0).best).toBe(1)
    expect(tried(3, contender => [100, 98.9, 98.5][contender] ?? 0).best).toBe(2)
  })

  it('takes the best predicted before any other has had its steps', () => {
    const trial = new Trial(3)
    for (let step = 0; step < 7; step++) trial.observe(step < 4 ? 100 : 1)
    expect(trial.current).toBe(1)
    expect(trial.best).toBe(0)
  })
})

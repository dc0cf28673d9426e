// Tests of what ranks decide and do together.

import { expect, test } from 'vitest'
import { everywhere, gathered, type Reduce, together } from '../../../worker/ranks/together.ts'
import { reducers } from '../../support/reducers.ts'

// Seen failing with flags that must be true on all ranks.
test('a flag is true if it is true on any rank, and a number is the sum over all ranks', async () => {
  const all = await Promise.all(
    reducers(3).map((reduce, rank) =>
      together(reduce, { stop: rank === 1, pending: false, all: true, time: rank + 0.5, count: 1 }),
    ),
  )
  const expected = { stop: true, pending: false, all: true, time: 4.5, count: 3 }
  expect(all).toEqual([expected, expected, expected])
})

// Seen failing with rows in single precision.
test('numbers are gathered by rank, with the same bits on every rank', async () => {
  const own = [
    [1 / 3, 2 ** 53 - 1],
    [0, -1e-300],
    [Number.MAX_VALUE, 0xffff_ffff],
  ]
  const all = await Promise.all(
    reducers(3).map((reduce, rank) => gathered(reduce, { rank, worldSize: 3 }, own[rank] ?? [])),
  )
  for (const rows of all) expect(rows.map(row => [...row])).toEqual(own)
})

test('work everywhere ends together, and its beat goes on while one rank is slow', async () => {
  let beats = 0
  const counted = reducers(2).map(
    (reduce): Reduce =>
      values => {
        beats++
        return reduce(values)
      },
  )
  const slow = Promise.withResolvers<string>()
  setTimeout(() => slow.resolve('slow'), 1200)
  const outcomes = await Promise.all(
    counted.map((reduce, rank) =>
      everywhere(reduce, () => (rank === 0 ? Promise.reject(new Error('quick')) : slow.promise)),
    ),
  )
  expect(outcomes).toEqual([{ error: new Error('quick') }, { value: 'slow' }])
  expect(beats).toBeGreaterThanOrEqual(4)
})

import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { Program } from '../../../worker/program/program.ts'
import { at } from '../../support/engine/cases.ts'
import { add, makeProgram, shapeOf } from '../../support/engine/programs.ts'
import { startWorld } from '../../support/engine/ranks.ts'

/** A busy machine can spoil one measurement; a defect of the engine shows in every try. */
const TIMED = { retry: 2 }

describe('a run', () => {
  it('tells when each op began and ended, in the order of each queue, after what it waits for', async () => {
    await using world = await startWorld(2)
    const elements = 200_000
    const programOf = (rank: number): Program =>
      makeProgram(
        'mixed',
        shapeOf(rank, 2, 1),
        { a: elements, b: elements, c: elements },
        Array.from({ length: 20 }, (_, index) => [
          { ...add(`a ${index}`, ['a', 'a'], 'a', elements), after: index > 0 ? [`sum ${index - 1}`] : [] },
          {
            op: 'all_reduce' as const,
            label: `sum ${index}`,
            inputs: ['a'],
            outputs: ['a'],
            attrs: { group: 'world' },
            after: [`a ${index}`],
          },
          add(`c ${index}`, ['b', 'b'], 'c', elements),
        ]).flat(),
      )
    await world.each((rank, index) => rank.call('load', programOf(index)))
    const [times] = await world.each(rank => rank.call('run', 'mixed'))
    if (!times) throw new Error('no times')
    const { ops } = programOf(0)
    const last = { compute: 0, comm: 0 }
    for (const [index, { queue, label, waits }] of ops.entries()) {
      const begin = times.start[index] ?? Number.NaN
      const end = times.end[index] ?? Number.NaN
      expect(begin, `of ${label}`).toBeGreaterThanOrEqual(last[queue])
      expect(end, `of ${label}`).toBeGreaterThanOrEqual(begin)
      for (const wait of waits) expect(begin, `of ${label}`).toBeGreaterThanOrEqual(times.end[wait] ?? Number.NaN)
      last[queue] = end
    }
  })

  it('computes while it communicates', TIMED, async () => {
    await using world = await startWorld(2)
    await world.each((rank, index) => {
      const sum = { op: 'all_reduce', label: 'sum', inputs: ['g'], outputs: ['g'], attrs: { group: 'world' } } as const
      const adds = Array.from({ length: 5 }, (_, place) => add(`add ${place}`, ['a', 'a'], 'b', 1000))
      const program = makeProgram('overlap', shapeOf(index, 2, 1), { g: 1000, a: 1000, b: 1000 }, [sum, ...adds])
      return rank.call('load', program)
    })
    // Rank 0's collective is under way until rank 1 arrives, much later. Rank 0 computes meanwhile.
    const running = world.rank(0).call('run', 'overlap')
    await sleep(300)
    await world.rank(1).call('run', 'overlap')
    const { end } = await running
    for (const index of [1, 2, 3, 4, 5]) expect(end[index]).toBeLessThan(end[0] ?? Number.NaN)
  })

  // Seen failing with ready taken when the first header arrives, when the exchange ends, and when
  // it starts.
  it('tells waiting for the last rank from transfer, and counts no processor time for waiting', TIMED, async () => {
    await using world = await startWorld(3)
    await world.each((rank, index) => {
      const sum = { op: 'all_reduce', label: 'sum', inputs: ['g'], outputs: ['g'], attrs: { group: 'world' } } as const
      const program = makeProgram('late', shapeOf(index, 3, 1), { g: 1_000_000, a: 1000, b: 1000 }, [
        sum,
        { ...add('alone', ['a', 'a'], 'b', 1000), after: ['sum'] },
      ])
      return rank.call('load', program)
    })
    const early = [0, 2].map(rank => world.rank(rank).call('run', 'late'))
    await sleep(400)
    const late = await world.rank(1).call('run', 'late')
    const durations = [...(await Promise.all(early)), late].map(({ start: begin, ready, end, cpu }) => {
      const [from = Number.NaN, all = Number.NaN, to = Number.NaN] = [begin[0], ready[0], end[0]]
      expect(ready[1]).toBe(begin[1])
      expect(cpu.every(each => each > 0)).toBe(true)
      return { skew: all - from, transfer: to - all, cpu: cpu[0] ?? Number.NaN }
    })
    const [first, second, last] = [at(durations, 0), at(durations, 1), at(durations, 2)]
    // The two early ranks waited for the late one, which waited for nobody. No transfer includes
    // the wait.
    for (const { transfer, cpu } of durations) {
      expect(Math.min(first.skew, second.skew)).toBeGreaterThan(3 * transfer)
      expect(Math.min(first.skew, second.skew)).toBeGreaterThan(3 * cpu)
    }
    expect(last.transfer).toBeGreaterThan(last.skew)
  })
})

// Tests of all_reduce, of connecting ranks and of ranks that are lost. Each rank is a process.

import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { freePort } from '../../../tools/free-port.ts'
import { at, generator, range } from '../../support/engine/cases.ts'
import { makeProgram, shapeOf } from '../../support/engine/programs.ts'
import { failureOf, startWorld, World } from '../../support/engine/ranks.ts'

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView<ArrayBuffer>): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength)

type GroupName = 'world' | 'ep' | 'edp'

const membersOf = (group: GroupName, rank: number, size: number, expertParallelSize: number): number[] =>
  range(size).filter(other => {
    if (group === 'ep') return Math.floor(other / expertParallelSize) === Math.floor(rank / expertParallelSize)
    return group === 'world' || other % expertParallelSize === rank % expertParallelSize
  })

describe('all_reduce', () => {
  for (const [size, expertParallelSize, group] of [
    [1, 1, 'world'],
    [2, 1, 'world'],
    [3, 1, 'world'],
    [4, 2, 'world'],
    [4, 2, 'ep'],
    [4, 2, 'edp'],
  ] as const) {
    it(`is the sum in rank order, with the same bits on every rank: world ${size}, EP ${expertParallelSize}, group ${group}`, async () => {
      await using world = await startWorld(size, { expertParallelSize })
      // Buffers that touch in memory (16 floats are 64 bytes) and that do not; shorter than the
      // group; many blocks long.
      const lengths = [16, 32, 1, 5, 400_003, 0, 70_000]
      const names = lengths.map((_, index) => `g${index}`)
      const random = generator(size)
      const terms = range(size).map(() =>
        lengths.map(length =>
          Float32Array.from({ length }, () => (random(2 ** 24) - 2 ** 23) / 2 ** (10 + random(20))),
        ),
      )
      for (const round of [0, 1]) {
        await world.each(async (rank, index) => {
          if (round === 0) {
            const buffers = Object.fromEntries(names.map((name, place) => [name, at(lengths, place)]))
            const op = { op: 'all_reduce', label: 'sum', inputs: names, outputs: names, attrs: { group } } as const
            await rank.call('load', makeProgram('reduce', shapeOf(index, size, expertParallelSize), buffers, [op]))
          }
          for (const [place, name] of names.entries()) await rank.call('write', name, at(at(terms, index), place))
        })
        // The ranks arrive in a different order each time.
        await world.each(async (rank, index) => {
          await sleep(round === 0 ? 20 * index : 20 * (size - index))
          await rank.call('run', 'reduce')
        })
        for (const [index, rank] of world.ranks.entries()) {
          const members = membersOf(group, index, size, expertParallelSize)
          for (const [place, name] of names.entries()) {
            const expected = at(at(terms, at(members, 0)), place).slice()
            for (const member of members.slice(1)) {
              const term = at(at(terms, member), place)
              for (let i = 0; i < expected.length; i++) expected[i] = Math.fround(at(expected, i) + at(term, i))
            }
            const sum = await rank.call('read', name)
            expect(bytesOf(sum).equals(bytesOf(expected)), `${name} of rank ${index}`).toBe(true)
          }
        }
      }
    })
  }

  it('of the control plane sums in rank order outside any program', async () => {
    await using world = await startWorld(3)
    const values = [
      [0.1, 1e16, 1],
      [0.2, 1, 1],
      [0.3, -1e16, 1],
    ]
    const sums = await world.each((rank, index) => rank.call('allReduce', Float64Array.from(at(values, index))))
    for (const sum of sums) expect([...sum]).toEqual([0.1 + 0.2 + 0.3, 1e16 + 1 - 1e16, 3])
  })

  it('sends each value about twice, whatever the number of ranks', async () => {
    const elements = 300_000
    for (const size of [2, 4]) {
      await using world = await startWorld(size)
      const op = { op: 'all_reduce', label: 'sum', inputs: ['g'], outputs: ['g'], attrs: { group: 'world' } } as const
      await world.each((rank, index) =>
        rank.call('load', makeProgram('reduce', shapeOf(index, size, 1), { g: elements }, [op])),
      )
      await world.each(rank => rank.call('run', 'reduce'))
      const ideal = (2 * (size - 1) * elements * 4) / size
      for (const sent of await world.each(rank => rank.call('bytesSent'))) expect(sent / ideal).toBeCloseTo(1, 2)
    }
  })
})

/** Ranks whose program reduces for longer than a test takes. */
async function busyWorld(size: number, timeoutMilliseconds: number): Promise<World> {
  const world = await startWorld(size, { timeoutMilliseconds })
  const ops = range(3000).map(
    index =>
      ({ op: 'all_reduce', label: `sum ${index}`, inputs: ['g'], outputs: ['g'], attrs: { group: 'world' } }) as const,
  )
  await world.each((rank, index) =>
    rank.call('load', makeProgram('busy', shapeOf(index, size, 1), { g: 500_000 }, ops)),
  )
  return world
}

describe('a peer', () => {
  for (const size of [2, 3]) {
    it(`that is killed in the middle becomes PEER_LOST naming it: world ${size}`, async () => {
      await using world = await busyWorld(size, 60_000)
      const survivors = world.ranks.slice(0, -1)
      const failures = survivors.map(rank => failureOf(rank.call('run', 'busy')))
      const last = world.rank(size - 1)
      const death = last.call('run', 'busy').catch(() => undefined)
      await sleep(200)
      last.signal('SIGKILL')
      await death
      const found = await Promise.all(failures)
      for (const failure of found) {
        expect(failure.code).toBe('PEER_LOST')
        expect(failure.op).toMatch(/^sum \d+$/)
      }
      // A survivor may see another survivor hang up before it sees the killed rank hang up.
      expect(found.map(({ peer }) => peer)).toContain(size - 1)
    })

    it(`that is stopped becomes PEER_TIMEOUT naming it at the deadline: world ${size}`, async () => {
      await using world = await busyWorld(size, 1500)
      const last = world.rank(size - 1)
      const failures = world.ranks.slice(0, -1).map(rank => failureOf(rank.call('run', 'busy')))
      const stopped = last.call('run', 'busy').catch(() => undefined)
      await sleep(200)
      last.signal('SIGSTOP')
      const found = await Promise.all(failures)
      const told = found.filter(({ code }) => code === 'PEER_TIMEOUT')
      expect(told.length).toBeGreaterThan(0)
      for (const { peer, op, message } of told) {
        expect(peer).toBe(size - 1)
        expect(op).toMatch(/^sum \d+$/)
        expect(message).toContain('1500 ms')
      }
      await last.stop()
      await stopped
    })
  }

  it('that never comes becomes PEER_TIMEOUT of connect, whether it dials or is dialled', async () => {
    await using world = new World(2)
    await world.create({ timeoutMilliseconds: 700 })
    await world.each(rank => rank.call('listen'))
    const nobody = { host: '127.0.0.1', port: 1 }
    const peers = [nobody, nobody]
    const found = await Promise.all([0, 1].map(rank => failureOf(world.rank(rank).call('connect', peers, 'attempt'))))
    expect(found).toMatchObject([
      { code: 'PEER_TIMEOUT', peer: 1 },
      { code: 'PEER_TIMEOUT', peer: 0 },
    ])
    expect(at(found, 1).message).toContain('refused')
  })

  it('of an older attempt stays outside', async () => {
    await using world = new World(2)
    await world.create({ timeoutMilliseconds: 1500 })
    const ports = await world.each(rank => rank.call('listen'))
    const peers = ports.map(({ port }) => ({ host: 'localhost', port }))
    const found = await world.each((rank, index) => failureOf(rank.call('connect', peers, `attempt ${index}`)))
    expect(found).toMatchObject([
      { code: 'PEER_TIMEOUT', peer: 1 },
      { code: 'PEER_TIMEOUT', peer: 0 },
    ])
    expect(at(found, 1).message).toContain('token')
  })

  it('may be dialled before it listens', async () => {
    await using world = new World(2)
    await world.create()
    const port = await freePort()
    const peers = [
      { host: 'localhost', port },
      { host: 'localhost', port: 1 },
    ]
    const early = world.rank(1).call('connect', peers, 'attempt')
    await sleep(500)
    await world.rank(0).call('listen', port)
    await world.rank(0).call('connect', peers, 'attempt')
    await early
    const sums = await world.each(rank => rank.call('allReduce', Float64Array.of(1)))
    expect(sums.map(sum => sum[0])).toEqual([2, 2])
  })
})

// Tests of the device's executor: two streams, events, NCCL and memory of its own. No GPU is
// needed. The device is a stand-in made of threads, its ops are the CPU's kernels, and NCCL is a
// stand-in over TCP (tests/native/standin). So every number must equal the CPU engine's to the bit;
// a difference is a defect of the executor.

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Choice, describe as nameOf } from '../../../worker/schedule/schedule.ts'
import { BUILD_DEADLINE } from '../../support/build.ts'
import { add, lookUp, makeProgram, shapeOf } from '../../support/engine/programs.ts'
import { failureOf, startWorld } from '../../support/engine/ranks.ts'
import { ModelWorld, Processes, wholeModel } from '../../support/model-world.ts'
import { configOf, type Job } from '../../support/program-arbitraries.ts'
import { buildStandIns, standInEnvironment } from '../../support/standin.ts'

beforeAll(() => buildStandIns(), BUILD_DEADLINE)

const cpu = new Processes()
const device = new Processes(standInEnvironment(), { backend: 'cuda' })
const padded = new Processes(standInEnvironment(), { backend: 'cuda', device: { padded: true } })
const withAllToAll = new Processes(standInEnvironment({ STANDIN_NCCL: '22803' }), {
  backend: 'cuda',
  device: { padded: true },
})
const oneByOne = new Processes(standInEnvironment(), { backend: 'cuda', device: { graphs: false } })
afterAll(async () => {
  for (const processes of [cpu, device, oneByOne, padded, withAllToAll]) await processes[Symbol.asyncDispose]()
})

type Case = Partial<Job> & Pick<Job, 'kind'>
function jobOf(shape: Case): Job {
  const { worldSize = 1, expertParallelSize = worldSize, microBatches = 1 } = shape
  const sizes = { units: 2, dim: 16, feedForward: 32, sequence: 16, capacityFactor: '2', worldSize, expertParallelSize }
  return {
    ...sizes,
    expertsPerRank: 4 / expertParallelSize,
    batch: 4 / worldSize / microBatches,
    microBatches,
    ...shape,
  }
}

async function train(processes: Processes, shape: Case, choice: Choice) {
  const config = configOf(jobOf(shape))
  const world = await ModelWorld.start(processes, config, { model: wholeModel(config, 4), choice })
  const curve = []
  for (let t = 1; t <= 4; t++) curve.push(await world.step(t))
  return { curve, parameters: await world.parameters(), gradients: await world.gradients() }
}

const SHORTCUT: Choice = { strategy: 'Shortcut', forwardSlot: 2, backwardSlot: 2, chunks: 1 }
const CASES: [Case, Choice][] = [
  [{ kind: 'ScMoE' }, SHORTCUT],
  [{ kind: 'ScMoE', worldSize: 2 }, SHORTCUT],
  [
    { kind: 'ScMoE', worldSize: 2 },
    { ...SHORTCUT, chunks: 2 },
  ],
  [{ kind: 'ScMoE', worldSize: 2, expertParallelSize: 1, microBatches: 2 }, { strategy: 'Sequential' }],
  [
    { kind: 'Top2', worldSize: 2 },
    { strategy: 'Pipelined', chunks: 2 },
  ],
  [{ kind: 'DGMoE', worldSize: 4, expertParallelSize: 2 }, { strategy: 'Sequential' }],
]

describe('a model on a device', () => {
  // Seen failing: waits of the communication stream left out; the run stalled.
  it.each(
    CASES.map(([shape, choice]) => [`${Object.values(shape).join(' ')}, ${nameOf(choice)}`, shape, choice] as const),
  )('trains as on the CPU, to the bit: %s', async (_, shape, choice) => {
    const expected = await train(cpu, shape, choice)
    expect(await train(device, shape, choice)).toEqual(expected)
    expect(await train(oneByOne, shape, choice)).toEqual(expected)
    if (shape.worldSize !== undefined) {
      expect(await train(padded, shape, choice)).toEqual(expected)
      expect(await train(withAllToAll, shape, choice)).toEqual(expected)
    }
  })
})

const together = (rank: number, size: number) =>
  makeProgram('together', shapeOf(rank, size, 1), { a: 64, b: 64 }, [
    add('double', ['a', 'a'], 'b', 64),
    { op: 'all_reduce', label: 'sum', inputs: ['b'], outputs: ['b'], attrs: { group: 'world' }, after: ['double'] },
  ])

it('tokens that were written for a device are looked at before the run', async () => {
  await using world = await startWorld(1, { backend: 'cuda' }, standInEnvironment())
  await world.rank(0).call('load', lookUp())
  await world.rank(0).call('write', 'tokens', [0, 7, 1, 9, 0])
  const failure = await failureOf(world.rank(0).call('run', 'look up'))
  expect(failure.code).toBe('BAD_PROGRAM')
  expect(failure.message).toContain("(buffer 'tokens') holds 9 at place 3, wants at least 0 and below vocabulary (8)")
})

describe('a device that fails', () => {
  // The two calls fail on different threads. Seen failing: an error of an event on the
  // communication thread ended the run as if it had been aborted.
  it.each(['cudaEventQuery', 'cudaMemcpy'])('is DEVICE_FAILED, in the words of its runtime: %s', async call => {
    await using world = await startWorld(1, { backend: 'cuda' }, standInEnvironment({ STANDIN_FAULT: call }))
    const elements = 1_000_000
    const adds = Array.from({ length: 300 }, (_, i) => add(`add ${i}`, ['a', 'a'], 'b', elements))
    const sum = { op: 'all_reduce', label: 'sum', inputs: ['b'], outputs: ['b'], attrs: { group: 'world' } } as const
    const ops = [...adds, { ...sum, after: ['add 299'] }]
    await world.rank(0).call('load', makeProgram('long', shapeOf(0, 1), { a: elements, b: elements }, ops))
    const failure = await failureOf(
      call === 'cudaMemcpy' ? world.rank(0).call('write', 'a', [1]) : world.rank(0).call('run', 'long'),
    )
    expect(failure.code).toBe('DEVICE_FAILED')
    expect(failure.message).toMatch(new RegExp(`standin:0 .*: ${call}: unspecified launch failure`))
  })
})

describe('a rank that comes late', () => {
  // Seen failing with ready as the collective's start, and with clocks taken to be equal.
  it.each([true, false])(
    'makes the others wait, which their times tell from transfer (as a graph: %s)',
    // A busy machine can spoil one measurement; a defect of the engine shows in every try.
    { retry: 2 },
    async graphs => {
      await using world = await startWorld(3, { backend: 'cuda', device: { graphs } }, standInEnvironment())
      const sum = { op: 'all_reduce', inputs: ['g'], outputs: ['g'], attrs: { group: 'world' } } as const
      const program = (rank: number) =>
        makeProgram('late', shapeOf(rank, 3, 1), { g: 100_000 }, [
          { ...sum, label: 'first' },
          { ...sum, label: 'second' },
        ])
      await world.each((rank, index) => rank.call('load', program(index)))
      await world.each(rank => rank.call('run', 'late'))
      const early = [0, 2].map(rank => world.rank(rank).call('run', 'late'))
      await sleep(400)
      const late = await world.rank(1).call('run', 'late')
      const spans = [...(await Promise.all(early)), late].map(({ start, ready, end }) =>
        [0, 1].map(op => ({
          skew: (ready[op] ?? Number.NaN) - (start[op] ?? Number.NaN),
          transfer: (end[op] ?? Number.NaN) - (ready[op] ?? Number.NaN),
        })),
      )
      const [[zero] = [], [two] = [], [one] = []] = spans
      const waited = Math.min(zero?.skew ?? 0, two?.skew ?? 0)
      expect(waited).toBeGreaterThan(200_000)
      expect(one?.skew).toBeLessThan(waited / 3)
      // All ranks arrive at the second collective at the same time.
      for (const [first, second] of spans) {
        expect(first?.transfer).toBeLessThan(waited / 3)
        expect(second?.skew).toBeLessThan(waited / 3)
      }
    },
  )
})

describe('a rank that is gone', () => {
  const start = (size: number, timeoutMilliseconds: number) =>
    startWorld(size, { backend: 'cuda', timeoutMilliseconds }, standInEnvironment())

  it('ends a run of the others with PEER_LOST, naming it, as soon as it is killed', async () => {
    await using world = await start(2, 60_000)
    await world.each((rank, index) => rank.call('load', together(index, 2)))
    await world.each(rank => rank.call('run', 'together'))
    const running = failureOf(world.rank(0).call('run', 'together'))
    world.rank(1).signal('SIGKILL')
    expect(await running).toMatchObject({ code: 'PEER_LOST', peer: 1 })
  })

  it('ends it with PEER_TIMEOUT, naming op and rank, when it is there but does not come', async () => {
    await using world = await start(3, 2000)
    await world.each((rank, index) => rank.call('load', together(index, 3)))
    world.rank(2).signal('SIGSTOP')
    const failures = await Promise.all([0, 1].map(rank => failureOf(world.rank(rank).call('run', 'together'))))
    expect(failures.map(({ code }) => code)).toContain('PEER_TIMEOUT')
    expect(failures).toContainEqual(expect.objectContaining({ code: 'PEER_TIMEOUT', op: 'sum', peer: 2 }))
  })

  it('lets a run be aborted that waits for it', async () => {
    await using world = await start(2, 60_000)
    await world.each((rank, index) => rank.call('load', together(index, 2)))
    const running = failureOf(world.rank(0).call('run', 'together'))
    await world.rank(0).call('abort')
    expect(await running).toMatchObject({ code: 'ABORTED' })
  })
})

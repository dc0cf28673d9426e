// The CUDA backend whole: its kernels, its streams and events, NCCL, the host that drives them. There is no GPU here: kernels are compiled for the
// host with every thread a fiber (tests/native/cuda/emulator), streams do everything at once, NCCL is a stand-in over TCP. What passes here has
// not run on a GPU.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { configOf, type Job } from '../unit/program-arbitraries.ts'
import { add, makeProgram, shapeOf } from './engine/programs.ts'
import { failureOf, startWorld } from './engine/ranks.ts'
import { distance, ModelWorld, Processes, type Step, wholeModel } from './model-world.ts'
import { emulatedEnvironment } from './standin/standin.ts'

const EMULATED = { backend: 'cuda', device: { graphs: false } } as const
let environment: NodeJS.ProcessEnv = {}
let emulated: Processes
const cpu = new Processes()
beforeAll(() => {
  environment = emulatedEnvironment()
  emulated = new Processes(environment, EMULATED)
}, 900_000)
afterAll(async () => {
  await cpu[Symbol.asyncDispose]()
  await emulated[Symbol.asyncDispose]()
})

type Case = Partial<Job> & Pick<Job, 'kind'>
function jobOf({ worldSize = 1, ...shape }: Case): Job {
  const sizes = { units: 1, dim: 16, feedForward: 32, sequence: 8, capacityFactor: '2', expertParallelSize: worldSize }
  return { ...sizes, worldSize, expertsPerRank: 4 / worldSize, batch: 2 / worldSize, ...shape }
}

const figures = (steps: readonly Step[]) => steps.flatMap(step => [step.loss, step.norm, ...step.aux])

async function train(processes: Processes, shape: Case) {
  const config = configOf(jobOf(shape))
  const world = await ModelWorld.start(processes, config, {
    model: wholeModel(config, 4),
    choice: { strategy: 'Shortcut', forwardSlot: 2, backwardSlot: 2, chunks: 1 },
  })
  return figures(await world.steps(3))
}

describe('the CUDA backend, emulated', () => {
  it.each([1, 2])('trains a model on %i ranks as the CPU engine does', async worldSize => {
    for (const shape of [{ kind: 'ScMoE' }, { kind: 'ScMoE', topK: 2, llama: true }] as const) {
      const expected = await train(cpu, { ...shape, worldSize })
      expect(distance(await train(emulated, { ...shape, worldSize }), expected)).toBeLessThan(1e-5)
    }
  })

  it('ends with PEER_LOST, naming the rank, when another is killed with SIGKILL', async () => {
    await using world = await startWorld(2, { ...EMULATED, timeoutMilliseconds: 60_000 }, environment)
    const program = (rank: number) =>
      makeProgram('together', shapeOf(rank, 2, 1), { a: 64, b: 64 }, [
        add('double', ['a', 'a'], 'b', 64),
        { op: 'all_reduce', label: 'sum', inputs: ['b'], outputs: ['b'], attrs: { group: 'world' }, after: ['double'] },
      ])
    await world.each((rank, index) => rank.call('load', program(index)))
    await world.each(rank => rank.call('run', 'together'))
    const running = failureOf(world.rank(0).call('run', 'together'))
    world.rank(1).signal('SIGKILL')
    expect(await running).toMatchObject({ code: 'PEER_LOST', peer: 1 })
  })
})

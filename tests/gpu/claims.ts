// What holds on a GPU, said once: tested on one (gpu.test.ts), and, so that these tests are known to work, with what stands in for one
// (tests/native/gpu-claims.test.ts). Each function makes tests inside the caller's `describe`.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ENV } from '../../crds/contract.ts'
import { OPS } from '../../worker/program/ops.ts'
import { add, makeProgram, shapeOf } from '../native/engine/programs.ts'
import { failureOf, startWorld } from '../native/engine/ranks.ts'
import { distance, ModelWorld, Processes, type Step, wholeModel } from '../native/model-world.ts'
import { lossCurve, temporaryFolder, tinySpec, trainToEnd } from '../native/worker-gang.ts'
import { configOf, type Job } from '../unit/program-arbitraries.ts'

/** A GPU, or what is taken for one. */
export interface Machine {
  /** Of a process that is to use it. */
  environment: Record<string, string>
  /** How far a loss may be from the CPU engine's, relative; 0: the same bits. */
  tolerance: number
  /** Of cuda_device_test. */
  opsWords: readonly string[]
  /** Whether programs of static shapes also run as graphs. */
  graphs: boolean
}
type Find = () => Machine

const root = join(import.meta.dirname, '../..')
const TIMEOUT = 600_000

export function claimOps(machine: Find): void {
  it('every op agrees with the CPU reference, with equal bits at every call, and writes nothing but its outputs', {
    timeout: TIMEOUT,
  }, () => {
    const { environment, opsWords } = machine()
    const { status, stdout, stderr } = spawnSync(join(root, 'build/native/cuda_device_test'), opsWords, {
      env: { ...process.env, ...environment },
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    })
    const lines = stdout
      .split('\n')
      .filter(Boolean)
      .map(line => line.split('\t'))
    expect({ status, stderr, wrong: lines.filter(line => line.at(-1) !== 'ok') }).toMatchObject({
      status: 0,
      wrong: [],
    })
    const compute = Object.entries(OPS).flatMap(([op, { queue }]) => (queue === 'compute' ? [op] : []))
    const checked = new Set(lines.flatMap(([what, op]) => (what === 'kernel' ? [op] : [])))
    expect(compute.filter(op => !checked.has(op))).toEqual([])
  })
}

type Case = Partial<Job> & Pick<Job, 'kind'>

/** The model and batch of the world stay; capacity never binds, so that no rank drops what another would keep. */
function jobOf({ worldSize = 1, ...shape }: Case): Job {
  const sizes = { units: 1, dim: 16, feedForward: 32, sequence: 8, capacityFactor: '8', expertParallelSize: worldSize }
  return { ...sizes, worldSize, expertsPerRank: 4 / worldSize, batch: 2 / worldSize, ...shape }
}

async function train(processes: Processes, shape: Case): Promise<number[]> {
  const config = configOf(jobOf(shape))
  const world = await ModelWorld.start(processes, config, {
    model: wholeModel(config, 4),
    choice: { strategy: 'Shortcut', forwardSlot: 2, backwardSlot: 2, chunks: 1 },
  })
  const figures = (step: Step) => [step.loss, step.norm, ...step.aux]
  return (await world.steps(4)).flatMap(figures)
}

const MODELS: readonly Case[] = [{ kind: 'ScMoE' }, { kind: 'ScMoE', topK: 2, llama: true }]

/** Processes of both engines, for the tests of one `describe`. */
function engines(machine: Find) {
  const cpu = new Processes()
  const gpu: Processes[] = []
  const of = (graphs: boolean) => {
    const made = new Processes(machine().environment, { backend: 'cuda', device: { graphs } })
    gpu.push(made)
    return made
  }
  afterAll(async () => {
    for (const processes of [cpu, ...gpu]) await processes[Symbol.asyncDispose]()
  })
  return { cpu, of }
}

export function claimTraining(machine: Find): void {
  const { cpu, of } = engines(machine)
  it('a model trains as on the CPU engine in fp32, op by op and as a graph', { timeout: TIMEOUT }, async () => {
    for (const graphs of machine().graphs ? [false, true] : [false]) {
      const gpu = of(graphs)
      for (const shape of MODELS)
        expect(distance(await train(gpu, shape), await train(cpu, shape))).toBeLessThanOrEqual(machine().tolerance)
    }
  })
}

export function claimRanks(machine: Find): void {
  const { of } = engines(machine)
  let gpu: Processes
  beforeAll(() => {
    gpu = of(machine().graphs)
  })

  it('two ranks of NCCL on one GPU train as one rank does', { timeout: TIMEOUT }, async () => {
    for (const shape of MODELS) {
      const alone = await train(gpu, shape)
      // Rounding of sums in another order.
      expect(distance(await train(gpu, { ...shape, worldSize: 2 }), alone)).toBeLessThan(1e-5)
    }
  })

  it('a rank killed with SIGKILL ends the other with PEER_LOST, naming it', { timeout: TIMEOUT }, async () => {
    const options = { backend: 'cuda', device: { graphs: false }, timeoutMilliseconds: 60_000 } as const
    await using world = await startWorld(2, options, machine().environment)
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
}

/** Of a gang of `replicas` workers, each with a GPU. */
export function claimCheckpoints(machine: Find, replicas: number): void {
  // Seen failing: first moments not uploaded after a restore; the last checkpoint not downloaded before it is written.
  it('a run moves from CPU to GPU and back by its checkpoints, and its losses are those of a run that never moved', {
    timeout: TIMEOUT,
  }, async () => {
    const leg = (steps: number) => tinySpec({ steps, replicas, everySteps: 1_000_000, warmupSteps: 60 })
    const [straight, moved] = [temporaryFolder(), temporaryFolder()]
    await trainToEnd(leg(30), straight)
    await trainToEnd(leg(10), moved)
    const [first] = await trainToEnd(leg(20), moved, { ...machine().environment, [ENV.backend]: 'cuda' })
    await trainToEnd(leg(30), moved)
    const [expected, got] = [lossCurve(straight), lossCurve(moved)]
    expect([...got.keys()]).toEqual([...expected.keys()])
    expect(distance([...got.values()], [...expected.values()])).toBeLessThanOrEqual(machine().tolerance)
    expect(first?.log).toMatch(/"persistentBytes":\d+,"transientBytes":\d+,"availableBytes":\d+,"msg":"memory"/)
  })
}

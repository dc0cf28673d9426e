// One rank of a benchmark: a process with engines by name, which is driven over its IPC channel and
// ends with it.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { ONES } from '../../worker/emit/alone.ts'
import { BUFFER } from '../../worker/emit/emit.ts'
import { createEngine, type Engine, type PeerAddress, type RunTimes } from '../../worker/engine.ts'
import type { ModelConfig } from '../../worker/model/config.ts'
import { initialise } from '../../worker/model/initialise.ts'
import { sliceOf, tensors } from '../../worker/model/tensors.ts'
import type { Program } from '../../worker/program/program.ts'
import { plantEmbedding, plantedRouter, plantedTokens } from './plant.ts'

export interface Result {
  /** The time from the moment when all ranks were ready until this rank was done. */
  milliseconds: number
  /** The runs by program. */
  runs: RunTimes[]
}

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

const engines = new Map<string, Engine>()

function engineOf(name: string): Engine {
  const engine = engines.get(name)
  if (!engine) throw new Error(`there is no engine ${name}`)
  return engine
}

export const methods = {
  open: (name: string, options: { rank: number; worldSize: number; expertParallelSize: number }) => {
    const engine = createEngine({ ...options, computeThreads: 1, timeoutMilliseconds: 120_000 })
    engines.set(name, engine)
    return engine.description
  },
  listen: async (name: string) => (await engineOf(name).listen()).port,
  connect: (name: string, peers: PeerAddress[]) => engineOf(name).connect(peers, 'bench'),
  load: (name: string, programs: Program[]) => {
    for (const program of programs) engineOf(name).load(program)
  },
  /**
   * Sets initial parameters, changed so that experts are loaded evenly, and a learning rate of 0,
   * so that every step computes the same bits.
   */
  reset: (name: string, config: ModelConfig, rank: number) => {
    const engine = engineOf(name)
    for (const tensor of tensors(config)) {
      const values = initialise(tensor, 1, sliceOf(tensor, config, rank))
      if (tensor.name === 'wte') plantEmbedding(values, config)
      engine.view(tensor.name).set(tensor.name.endsWith('.router.weight') ? plantedRouter(config) : values)
      for (const beside of ['grad', 'm', 'v']) engine.view(`${tensor.name}.${beside}`).fill(0)
    }
    engine.view(BUFFER.hyper).set([0, 1, 1, 0])
    engine.view(ONES).fill(1)
    engine.view(BUFFER.tokens).set(plantedTokens(config, rank))
  },
  /** Runs programs in sequence after all ranks are ready. */
  run: async (name: string, programs: string[]): Promise<Result> => {
    const engine = engineOf(name)
    const runs: RunTimes[] = []
    await engine.allReduce(new Float64Array(1))
    const started = performance.now()
    for (const program of programs) runs.push(await engine.run(program))
    return { milliseconds: performance.now() - started, runs }
  },
  read: (name: string, buffer: string) => engineOf(name).view(buffer).slice(),
  write: (name: string, buffer: string, values: ArrayLike<number>) => engineOf(name).view(buffer).set(values),
  bytesSent: (name: string) => engineOf(name).bytesSent,
  /** Resident memory after garbage collection. */
  residentBytes: () => {
    // The second collection returns the memory that the first one frees.
    for (let time = 0; time < 2; time++) collectGarbage()
    return process.memoryUsage.rss()
  },
  close: (name: string) => {
    engineOf(name).close()
    engines.delete(name)
  },
}

export type Methods = typeof methods
export interface Request {
  id: number
  method: keyof Methods
  args: unknown[]
}
export type Reply = { id: number } & ({ value: unknown } | { error: string })

/** Reports, with id -1, that the process has started in its network. */
process.send?.({ id: -1, value: undefined } satisfies Reply)

const answer = async ({ id, method, args }: Request): Promise<void> => {
  try {
    process.send?.({ id, value: await Reflect.apply(methods[method], undefined, args) } satisfies Reply)
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.send?.({ id, error: text } satisfies Reply)
  }
}

process.on('message', (request: Request) => void answer(request))
process.on('disconnect', () => process.exit())

// Starts ranks as processes on this machine and calls their engines. Every process is stopped by
// its pid.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import type { EngineOptions } from '../../../worker/engine.ts'
import type { Failure, Methods, Reply, Request } from './rank.ts'

/** An error of a rank's engine, as received over the channel. */
export class RankError extends Error {
  readonly failure: Failure
  constructor(failure: Failure) {
    super(failure.message)
    this.failure = failure
  }
}

/**
 * All processes that run, also those of a test that timed out and those that a signal has stopped.
 */
const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

type Value<M extends keyof Methods> = Awaited<ReturnType<Methods[M]>>

export class Rank {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  #next = 0

  constructor(environment: NodeJS.ProcessEnv = {}) {
    const env = { ...process.env, ...environment }
    this.#child = fork(join(import.meta.dirname, 'rank.ts'), { serialization: 'advanced', env })
    this.#child.on('message', (reply: Reply) => {
      const waiting = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ('failure' in reply) waiting?.reject(new RankError(reply.failure))
      else waiting?.resolve(reply.value)
    })
    living.add(this.#child)
    this.#child.on('exit', (code, signal) => {
      living.delete(this.#child)
      for (const { reject } of this.#waiting.values()) reject(new Error(`rank process ended: ${code ?? signal}`))
      this.#waiting.clear()
    })
  }

  call<M extends keyof Methods>(method: M, ...args: Parameters<Methods[M]>): Promise<Value<M>> {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- this reply is to this method
      this.#waiting.set(id, { resolve: value => resolve(value as Value<M>), reject })
      this.#child.send({ id, method, args } satisfies Request)
    })
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise(done => this.#child.once('exit', done))
    this.#child.kill('SIGKILL')
    await ended
  }
}

export const TOKEN = 'attempt 1'

/** The ranks of one world, each a process. */
export class World implements AsyncDisposable {
  readonly ranks: Rank[]

  constructor(size: number, environment: NodeJS.ProcessEnv = {}) {
    // NCCL refuses two ranks of one host on one GPU, so each rank gets a host id of its own.
    this.ranks = Array.from({ length: size }, (_, rank) => new Rank({ NCCL_HOSTID: `rank ${rank}`, ...environment }))
  }

  get size(): number {
    return this.ranks.length
  }

  rank(rank: number): Rank {
    const found = this.ranks[rank]
    if (!found) throw new Error(`no rank ${rank}`)
    return found
  }

  each<T>(action: (rank: Rank, index: number) => Promise<T>): Promise<T[]> {
    return Promise.all(this.ranks.map(action))
  }

  async create(options: Partial<EngineOptions> = {}): Promise<void> {
    const { worldSize, ...rest } = { ...DEFAULTS, ...options, worldSize: this.size }
    await this.each((rank, index) => rank.call('create', { ...rest, worldSize, rank: index }))
  }

  async connect(token: string = TOKEN): Promise<void> {
    const ports = await this.each(rank => rank.call('listen'))
    const peers = ports.map(({ port }) => ({ host: '127.0.0.1', port }))
    await this.each(rank => rank.call('connect', peers, token))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.each(rank => rank.stop())
  }
}

export const DEFAULTS: EngineOptions = {
  rank: 0,
  worldSize: 1,
  expertParallelSize: 1,
  computeThreads: 1,
  timeoutMilliseconds: 20_000,
}

export async function startWorld(
  size: number,
  options: Partial<EngineOptions> = {},
  environment: NodeJS.ProcessEnv = {},
): Promise<World> {
  const world = new World(size, environment)
  try {
    await world.create(options)
    await world.connect()
    return world
  } catch (error) {
    await world[Symbol.asyncDispose]()
    throw error
  }
}

/** The failure with which a call ended. Throws if the call succeeded. */
export async function failureOf(call: Promise<unknown>): Promise<Failure> {
  const outcome = await call.then(
    value => ({ value }),
    (error: unknown) => ({ error }),
  )
  if ('error' in outcome && outcome.error instanceof RankError) return outcome.error.failure
  throw new Error(`expected an engine error, got ${'error' in outcome ? String(outcome.error) : 'success'}`)
}

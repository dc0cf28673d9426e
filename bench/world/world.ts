// The ranks of a benchmark: processes on this machine with one compute thread each. Each of several
// ranks has a network of its own.

import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { endsWithThisProcess } from '../children.ts'
import { addressOf, IN_NEW_NETWORK, inNetworkOf, Network } from './network.ts'
import type { Methods, Reply, Request } from './rank.ts'

type Value<M extends keyof Methods> = Awaited<ReturnType<Methods[M]>>

export class Rank {
  /** Resolves when the process runs in its network. */
  readonly ready: Promise<void>
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  #next = 0

  constructor(command: readonly string[]) {
    const words = [...command, process.execPath, join(import.meta.dirname, 'rank.ts')]
    this.#child = spawn(words[0] ?? '', words.slice(1), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    })
    endsWithThisProcess(this.#child)
    this.ready = new Promise((resolve, reject) => {
      this.#waiting.set(-1, { resolve: () => resolve(), reject })
    })
    this.#child.on('message', (reply: Reply) => {
      const waiting = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ('error' in reply) waiting?.reject(new Error(reply.error))
      else waiting?.resolve(reply.value)
    })
    this.#child.once('error', error => this.#fail(error))
    this.#child.once('exit', (code, signal) => {
      this.#fail(new Error(`the process of a rank ended: ${code ?? signal}`))
    })
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  call<M extends keyof Methods>(method: M, ...args: Parameters<Methods[M]>): Promise<Value<M>> {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: value => resolve(value as Value<M>), reject })
      this.#child.send({ id, method, args } satisfies Request, error => error && reject(error))
    })
  }

  stop(): void {
    this.#child.kill('SIGKILL')
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}

/** Ranks that can reach each other. All processes end with it, or with this process. */
export class World implements Disposable {
  readonly ranks: readonly Rank[]
  #network: Network | undefined

  private constructor(ranks: readonly Rank[]) {
    this.ranks = ranks
  }

  /** Several ranks need what `obstacle` checks. */
  static async start(size: number): Promise<World> {
    const command = size > 1 ? IN_NEW_NETWORK : []
    const world = new World(Array.from({ length: size }, () => new Rank(command)))
    try {
      await world.each(rank => rank.ready)
      if (size > 1) world.#network = await Network.of(world.ranks.map(({ pid }) => pid))
      return world
    } catch (error) {
      world[Symbol.dispose]()
      throw error
    }
  }

  each<T>(action: (rank: Rank, index: number) => Promise<T>): Promise<T[]> {
    return Promise.all(this.ranks.map(action))
  }

  /** Opens connected engines, one on each rank; returns the description of an engine. */
  async open(name: string, expertParallelSize = this.ranks.length): Promise<string> {
    const worldSize = this.ranks.length
    const [description = ''] = await this.each((rank, index) =>
      rank.call('open', name, { rank: index, worldSize, expertParallelSize }),
    )
    const ports = await this.each(rank => rank.call('listen', name))
    const peers = ports.map((port, index) => ({ host: addressOf(index), port }))
    await this.each(rank => rank.call('connect', name, peers))
    return description
  }

  async close(name: string): Promise<void> {
    await this.each(rank => rank.call('close', name))
  }

  /** Limits the bits per second that leave each rank; undefined removes the limit. */
  limit(bitsPerSecond: number | undefined): void {
    this.#network?.limit(bitsPerSecond)
  }

  /** Words that, put before a command, run it in the network of a rank. */
  inside(rank: number): string[] {
    return inNetworkOf(this.ranks[rank]?.pid ?? -1)
  }

  [Symbol.dispose](): void {
    for (const rank of this.ranks) rank.stop()
    this.#network?.[Symbol.dispose]()
  }
}

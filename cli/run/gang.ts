// Runs the ranks of a job as processes on this machine. They end together: when one of them fails,
// when `stop` is called, and when this process dies.

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism, constants } from 'node:os'
import { join } from 'node:path'
import { ENV, type Failure, TerminationRecord } from '../../crds/contract.ts'
import { backendOf, worldSizeOf } from '../../crds/ranks.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'

export interface GangOptions {
  name: string
  spec: ScMoEJobSpec
  output: string
  /** The folder for termination records; the caller removes it. */
  scratch: string
}

export interface RankEnd {
  rank: number
  code: number
  failure: Failure | undefined
}

/** Time in which the other ranks may notice the first failure by themselves. */
const GRACE_MILLISECONDS = 5000
const WORKER = join(import.meta.dirname, '../../worker/main.ts')

export class Gang {
  readonly progressPort: number
  readonly #options: GangOptions
  readonly #children: ChildProcess[] = []
  readonly #ends: RankEnd[] = []
  readonly #secret = randomBytes(32).toString('hex')
  #stopping = false

  private constructor(options: GangOptions, progressPort: number) {
    this.#options = options
    this.progressPort = progressPort
  }

  static async start(options: GangOptions): Promise<Gang> {
    const [rendezvousPort = 0, progressPort = 0] = await freePorts(2)
    const gang = new Gang(options, progressPort)
    mkdirSync(join(options.output, 'logs'), { recursive: true })
    for (let rank = 0; rank < worldSizeOf(options.spec); rank++) gang.#spawn(rank, rendezvousPort)
    return gang
  }

  /** Resolves when every process has ended; the end that caused the others comes first. */
  async finished(): Promise<RankEnd[]> {
    await Promise.all(this.#children.map((child, rank) => this.#watch(child, rank)))
    return this.#ends.toSorted((a, b) => consequence(a) - consequence(b))
  }

  /** The first call makes every rank save and stop after its step; the second kills them. */
  stop(): void {
    this.#signal(this.#stopping ? 'SIGKILL' : 'SIGTERM')
    this.#stopping = true
  }

  #spawn(rank: number, rendezvousPort: number): void {
    const { name, spec, output, scratch } = this.#options
    const worldSize = worldSizeOf(spec)
    const { template: _, ...workers } = spec.workers
    const log = openSync(join(output, 'logs', `rank-${rank}.log`), 'w')
    const child = spawn(process.execPath, [WORKER], {
      // In a session of its own, so that Ctrl-C reaches only this process, which passes it on
      // once. The IPC channel ends the worker when this process dies.
      detached: true,
      stdio: ['ignore', log, log, 'ipc'],
      env: {
        [ENV.computeThreads]: String(Math.max(1, Math.floor(availableParallelism() / worldSize))),
        ...process.env,
        [ENV.jobName]: name,
        [ENV.jobUid]: `local-${name}`.slice(0, 64),
        [ENV.attempt]: '0',
        [ENV.rank]: String(rank),
        [ENV.worldSize]: String(worldSize),
        [ENV.localRank]: String(rank),
        [ENV.backend]: backendOf(spec),
        [ENV.rendezvous]: `127.0.0.1:${rendezvousPort}`,
        [ENV.secret]: this.#secret,
        [ENV.spec]: JSON.stringify({ ...spec, workers }),
        [ENV.outputDirectory]: output,
        [ENV.httpPort]: String(rank === 0 ? this.progressPort : 0),
        [ENV.terminationLog]: recordPath(scratch, rank),
      },
    })
    closeSync(log)
    this.#children.push(child)
  }

  async #watch(child: ChildProcess, rank: number): Promise<void> {
    const code = await new Promise<number>(resolve => {
      child.once('error', () => resolve(1))
      child.once('exit', (exit, signal) => resolve(exit ?? 128 + (signal ? constants.signals[signal] : 0)))
    })
    this.#ends.push({ rank, code, failure: readFailure(recordPath(this.#options.scratch, rank)) })
    if (code !== 0) setTimeout(() => this.#signal('SIGKILL'), GRACE_MILLISECONDS).unref()
  }

  #signal(signal: 'SIGTERM' | 'SIGKILL'): void {
    for (const child of this.#children) if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  }
}

const recordPath = (scratch: string, rank: number) => join(scratch, `rank-${rank}.json`)

/** Sorts ends by cause: a rank that blames a peer failed because of it; success caused nothing. */
export function consequence({ code, failure }: Omit<RankEnd, 'rank'>): number {
  if (code === 0) return 2
  return failure?.reason === 'peerLost' || failure?.peer !== undefined ? 1 : 0
}

function readFailure(path: string): Failure | undefined {
  try {
    return TerminationRecord.parse(JSON.parse(readFileSync(path, 'utf8'))).failure
  } catch {
    return undefined
  }
}

/** Different ports that no process listens on at this moment. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer()
      await new Promise<void>(resolve => {
        server.listen(0, '127.0.0.1', resolve)
      })
      return server
    }),
  )
  return servers.map(server => {
    const address = server.address()
    server.close()
    return typeof address === 'object' && address !== null ? address.port : 0
  })
}

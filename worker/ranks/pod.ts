// The parent process of a pod with several ranks, one child process for each GPU; it is no rank
// itself. It passes on the signals that stop the pod, ends the other ranks when one has failed, and
// leaves the termination message of the rank whose failure explains the others.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { ENV, EXIT, type Failure, PORT, TerminationRecord } from '../../crds/contract.ts'
import { type Reason, WorkerFailure } from '../failure.ts'
import { writeTermination } from '../report/termination.ts'

type Environment = Readonly<Record<string, string | undefined>>

interface RankEnd {
  rank: number
  code: number
  signal: NodeJS.Signals | null
  /** Whether this process killed the rank because another one had failed. */
  isVictim: boolean
  /** Position in the order in which the ranks ended. */
  place: number
}

/** How long the other ranks get to notice the first failure by themselves. */
const GRACE_MILLISECONDS = 5000

export const hasSeveralRanks = (env: Environment): boolean =>
  Number(env[ENV.localWorldSize] ?? 1) > 1 && !env[ENV.localRank]

/**
 * Starts `program` once for each rank of the pod. Resolves with the pod's exit code when all ended.
 */
export async function runPod(program: string, env: Environment): Promise<number> {
  const scratch = mkdtempSync(join(tmpdir(), 'scmoe-pod-'))
  try {
    return await new Pod({ program, env, scratch }).run()
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

class Pod {
  readonly #options: { program: string; env: Environment; scratch: string }
  readonly #children: ChildProcess[] = []
  readonly #victims = new Set<ChildProcess>()
  readonly #ends: RankEnd[] = []
  #stopping = false

  constructor(options: { program: string; env: Environment; scratch: string }) {
    this.#options = options
  }

  async run(): Promise<number> {
    const { env } = this.#options
    const first = Number(env[ENV.rank] ?? 0)
    const stop = (signal: NodeJS.Signals) => {
      this.#stopping = true
      this.#signal(signal)
    }
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop)
    const locals = Array.from({ length: Number(env[ENV.localWorldSize]) }, (_, local) => local)
    await Promise.all(locals.map(async local => this.#watch(this.#spawn(first + local, local), first + local)))
    return this.#conclude()
  }

  #spawn(rank: number, local: number): ChildProcess {
    const { program, env } = this.#options
    const child = spawn(process.execPath, [program], {
      // A rank ends when the channel closes, which happens when this process dies.
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: {
        ...env,
        [ENV.rank]: String(rank),
        [ENV.localRank]: String(local),
        [ENV.httpPort]: String(Number(env[ENV.httpPort] ?? PORT.http) + local),
        [ENV.terminationLog]: this.#recordPath(rank),
      },
    })
    this.#children.push(child)
    return child
  }

  async #watch(child: ChildProcess, rank: number): Promise<void> {
    const [code, signal] = await new Promise<[number, NodeJS.Signals | null]>(resolve => {
      child.once('error', () => resolve([EXIT.internal.code, null]))
      child.once('exit', (exit, by) => resolve([exit ?? 128 + (by ? constants.signals[by] : 0), by]))
    })
    this.#ends.push({ rank, code, signal, isVictim: this.#victims.has(child), place: this.#ends.length })
    const obeyed = code === EXIT.terminated.code && this.#stopping
    if (code === EXIT.ok.code || obeyed) return
    setTimeout(() => this.#killRest(), GRACE_MILLISECONDS).unref()
  }

  #signal(signal: NodeJS.Signals): void {
    for (const child of this.#living()) child.kill(signal)
  }

  #killRest(): void {
    for (const child of this.#living()) this.#victims.add(child)
    this.#signal('SIGKILL')
  }

  #living(): ChildProcess[] {
    return this.#children.filter(child => child.exitCode === null && child.signalCode === null)
  }

  #conclude(): number {
    const { env } = this.#options
    const [end] = this.#ends.toSorted((a, b) => this.#consequence(a) - this.#consequence(b) || a.place - b.place)
    if (end === undefined) return EXIT.internal.code
    const { progress } = this.#record(end.code === EXIT.ok.code ? Number(env[ENV.rank] ?? 0) : end.rank)
    const failure = end.code === EXIT.ok.code ? undefined : this.#failure(end)
    writeTermination(env[ENV.terminationLog], {
      rank: end.rank,
      ...(progress && { progress }),
      ...(failure && { failure }),
    })
    return end.code
  }

  /**
   * Orders ends by how much they explain: first a rank's own failure, then a lost peer, then a rank
   * that this process killed, then one that was told to stop, then success.
   */
  #consequence({ rank, code, isVictim }: RankEnd): number {
    if (code === EXIT.ok.code) return 4
    if (code === EXIT.terminated.code) return 3
    if (isVictim) return 2
    const reason = this.#record(rank).failure?.reason
    return reason === 'peerLost' || reason === 'rendezvous' ? 1 : 0
  }

  #failure({ rank, code, signal }: RankEnd): WorkerFailure {
    const record: Failure | undefined = this.#record(rank).failure
    if (record !== undefined && isReason(record.reason))
      return new WorkerFailure(record.reason, `rank ${rank}: ${record.message}`, { op: record.op, peer: record.peer })
    const how = signal === null ? `ended with code ${code}` : `was killed by ${signal}`
    return new WorkerFailure('internal', `rank ${rank} ${how} without saying why; its last lines are in the log`)
  }

  #record(rank: number): TerminationRecord {
    try {
      return TerminationRecord.parse(JSON.parse(readFileSync(this.#recordPath(rank), 'utf8')))
    } catch {
      return {}
    }
  }

  #recordPath(rank: number): string {
    return join(this.#options.scratch, `rank-${rank}.json`)
  }
}

const isReason = (word: string): word is Reason => Object.hasOwn(EXIT, word) && word !== 'ok'

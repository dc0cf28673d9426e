// Runs the ranks of a job as processes on this machine. They end together: when one of them fails,
// when they are told to stop, and when this process dies.

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { availableParallelism, constants } from 'node:os'
import { join } from 'node:path'
import { ENV, EXIT, type Failure, type Progress, TerminationRecord } from '../../crds/contract.ts'
import { backendOf, worldSizeOf } from '../../crds/ranks.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { JobFileError } from '../job-file.ts'
import { causeOf } from '../sentence.ts'
import { freePorts, type Ports } from './ports.ts'
import type { Stops } from './stops.ts'

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
  /** How far the rank says that it came. */
  progress: Progress | undefined
}

export interface Following {
  stops: Stops
  /** Called with the port on which rank 0 tells how far it is; returns what ends the watching. */
  watch?: (progressPort: number) => () => void
  choosePorts?: () => Promise<Ports>
}

/** Time in which the other ranks may notice the first failure by themselves. */
const GRACE_MILLISECONDS = 5000
const WORKER = join(import.meta.dirname, '../../worker/main.ts')
/** How often ports are chosen again that another process has taken before rank 0. */
const PORT_TRIES = 5

/**
 * Runs the ranks to their end and passes the stop signals on to them: the first makes every rank
 * save and stop after its step, the second kills them. The end that caused the others comes first.
 */
export async function runGang(options: GangOptions, following: Following): Promise<RankEnd[]> {
  const { stops, watch = () => () => undefined, choosePorts = freePorts } = following
  for (let left = PORT_TRIES - 1; ; left--) {
    const ports = await choosePorts()
    const gang = new Gang(options, ports)
    stops.listen(({ again }) => gang.stop(again ? 'SIGKILL' : 'SIGTERM'))
    const unwatch = watch(ports.progress)
    const ends = await gang.finished().finally(unwatch)
    if (ends[0]?.failure?.reason !== 'portInUse' || left === 0 || stops.request !== undefined) return ends
  }
}

class Gang {
  readonly #options: GangOptions
  readonly #children: ChildProcess[] = []
  readonly #ends: RankEnd[] = []
  readonly #secret = randomBytes(32).toString('hex')
  #stopping = false

  constructor(options: GangOptions, ports: Ports) {
    this.#options = options
    for (let rank = 0; rank < worldSizeOf(options.spec); rank++) this.#spawn(rank, ports)
  }

  /** Resolves when every process has ended; the end that caused the others comes first. */
  async finished(): Promise<RankEnd[]> {
    await Promise.all(this.#children.map((child, rank) => this.#watch(child, rank)))
    return this.#ends.toSorted((a, b) => consequence(a) - consequence(b))
  }

  stop(signal: 'SIGTERM' | 'SIGKILL'): void {
    this.#stopping = true
    for (const child of this.#children) if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  }

  #spawn(rank: number, ports: Ports): void {
    const { name, spec, output, scratch } = this.#options
    const worldSize = worldSizeOf(spec)
    const { template: _, ...workers } = spec.workers
    const log = openLog(join(output, 'logs'), `rank-${rank}.log`)
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
        [ENV.rendezvous]: `127.0.0.1:${ports.rendezvous}`,
        [ENV.secret]: this.#secret,
        [ENV.spec]: JSON.stringify({ ...spec, workers }),
        [ENV.outputDirectory]: output,
        [ENV.httpPort]: String(rank === 0 ? ports.progress : 0),
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
    const { failure, progress } = readRecord(recordPath(this.#options.scratch, rank))
    this.#ends.push({ rank, code, failure, progress })
    // Ranks that stop as they were told end when they have saved, however long that takes.
    const obeyed = code === EXIT.terminated.code && this.#stopping
    if (code !== 0 && !obeyed) setTimeout(() => this.stop('SIGKILL'), GRACE_MILLISECONDS).unref()
  }
}

/** Appends, because a run that does nothing must not lose what an earlier run has logged. */
function openLog(folder: string, name: string): number {
  try {
    mkdirSync(folder, { recursive: true })
    return openSync(join(folder, name), 'a')
  } catch (error) {
    throw new JobFileError(`${join(folder, name)} cannot be written (${causeOf(error)}): give another --output`)
  }
}

const recordPath = (scratch: string, rank: number) => join(scratch, `rank-${rank}.json`)

/** Sorts ends by cause: a rank that blames a peer failed because of it; success caused nothing. */
export function consequence({ code, failure }: Omit<RankEnd, 'rank'>): number {
  if (code === 0) return 2
  return failure?.reason === 'peerLost' || failure?.peer !== undefined ? 1 : 0
}

function readRecord(path: string): TerminationRecord {
  try {
    return TerminationRecord.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return {}
  }
}

// Starts real worker processes for tests, with the environment of the contract. They are always
// ended by pid.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach } from 'vitest'
import { ENV, EXIT, TerminationRecord } from '../../crds/contract.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { freePort } from '../../tools/free-port.ts'
import { CLAIM } from '../../worker/checkpoint/claim.ts'
import { folderOf, listSteps, readIndex } from '../../worker/checkpoint/contents.ts'
import { hashFile } from '../../worker/checkpoint/safetensors.ts'
import { COMPILED } from './compiled.ts'

const ROOT = join(import.meta.dirname, '../..')
const WORKER = join(ROOT, 'worker/main.ts')

/**
 * Seconds after which a collective gives up in these tests. The death of a peer must be noticed
 * long before.
 */
export const PEER_TIMEOUT_SECONDS = 30

type SpecInput = Parameters<typeof ScMoEJobSpec.parse>[0]

/**
 * A model of 150 thousand parameters. No token is dropped, so that every number of ranks computes
 * the same.
 */
export function tinySpec(change: {
  steps: number
  replicas: number
  everySteps?: number
  keep?: number
  /**
   * During the warm-up the learning rate does not depend on the number of steps. So a run may end
   * early and be continued with more steps.
   */
  warmupSteps?: number
  rest?: object
}): SpecInput {
  return {
    model: { blocks: 2, hiddenSize: 32, heads: 2, feedForwardSize: 64, experts: 4, capacityFactor: '4' },
    training: {
      steps: change.steps,
      globalBatchSequences: 4,
      sequenceLength: 32,
      optimizer: { learningRate: '3e-3', warmupSteps: change.warmupSteps ?? 5 },
      evaluation: { everySteps: 1000, batches: 1 },
    },
    workers: { replicas: change.replicas },
    checkpoint: { volume: { emptyDir: {} }, everySteps: change.everySteps ?? 10, keep: change.keep ?? 2 },
    ...change.rest,
  }
}

export interface RankEnd {
  code: number | null
  signal: NodeJS.Signals | null
  record: TerminationRecord | undefined
  log: string
}

const children = new Set<ChildProcess>()
const folders = new Set<string>()

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  while (children.size > 0) await sleep(5)
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
  folders.clear()
})

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-test-'))
  folders.add(folder)
  return folder
}

export class TestGang {
  readonly children: ChildProcess[] = []
  readonly httpPort: number
  readonly #ends: Promise<RankEnd>[] = []
  readonly #logs: (() => string)[] = []

  private constructor(httpPort: number) {
    this.httpPort = httpPort
  }

  /** The output of all ranks so far. */
  get log(): string {
    return this.#logs.map(log => log()).join('\n')
  }

  static async start(spec: SpecInput, output: string, env: Record<string, string> = {}): Promise<TestGang> {
    const gang = new TestGang(await freePort())
    const port = await freePort()
    const worldSize = ScMoEJobSpec.parse(spec).workers.replicas
    const scratch = temporaryFolder()
    for (let rank = 0; rank < worldSize; rank++) {
      gang.#spawn(join(scratch, `${rank}.json`), {
        PATH: process.env['PATH'] ?? '',
        // Files that a killed rank leaves here are removed after the test.
        TMPDIR: scratch,
        ...COMPILED,
        [ENV.jobName]: 'test',
        [ENV.jobUid]: 'uid-of-test',
        [ENV.attempt]: '0',
        [ENV.rank]: String(rank),
        [ENV.worldSize]: String(worldSize),
        [ENV.rendezvous]: `127.0.0.1:${port}`,
        [ENV.secret]: 'the same random text for all ranks',
        [ENV.spec]: JSON.stringify(spec),
        [ENV.outputDirectory]: output,
        [ENV.httpPort]: rank === 0 ? String(gang.httpPort) : '0',
        [ENV.computeThreads]: '1',
        [ENV.terminationLog]: join(scratch, `${rank}.json`),
        SCMOE_PEER_TIMEOUT_SECONDS: String(PEER_TIMEOUT_SECONDS),
        ...env,
      })
    }
    return gang
  }

  /** The ends of all ranks, once all have ended. */
  ends(): Promise<RankEnd[]> {
    return Promise.all(this.#ends)
  }

  kill(rank: number, signal: NodeJS.Signals): void {
    this.children[rank]?.kill(signal)
  }

  get(path: string): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.httpPort}${path}`)
  }

  #spawn(record: string, env: Record<string, string>): void {
    const child = spawn(process.execPath, [WORKER], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    children.add(child)
    this.children.push(child)
    let log = ''
    this.#logs.push(() => log)
    child.stdout.on('data', chunk => {
      log += String(chunk)
    })
    child.stderr.on('data', chunk => {
      log += String(chunk)
    })
    this.#ends.push(
      new Promise(resolve => {
        child.once('close', (code, signal) => {
          children.delete(child)
          resolve({ code, signal, record: readRecord(record), log })
        })
      }),
    )
  }
}

function readRecord(path: string): TerminationRecord | undefined {
  try {
    return TerminationRecord.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return undefined
  }
}

/** Runs a gang to its end. Throws with the logs if a rank does not end with code 0. */
export async function trainToEnd(spec: SpecInput, output: string, env?: Record<string, string>): Promise<RankEnd[]> {
  const ends = await (await TestGang.start(spec, output, env)).ends()
  const failed = ends.find(({ code }) => code !== EXIT.ok.code)
  if (failed)
    throw new Error(`a rank ended with ${failed.code ?? failed.signal}:\n${ends.map(({ log }) => log).join('\n')}`)
  return ends
}

/** Losses by number of steps done. */
export function lossCurve(output: string): Map<number, number> {
  const curve = new Map<number, number>()
  for (const line of readFileSync(join(output, 'losses.jsonl'), 'utf8').split('\n').filter(Boolean)) {
    const { step, loss }: { step: number; loss?: number } = JSON.parse(line)
    if (loss === undefined) continue
    if (curve.has(step)) throw new Error(`step ${step} is in losses.jsonl twice`)
    curve.set(step, loss)
  }
  return curve
}

/** All names in the folder of checkpoints, besides the claim of the last gang. */
export function checkpointFolders(output: string): string[] {
  const names = readdirSync(join(output, 'checkpoints'))
  return names.filter(name => name !== CLAIM).toSorted()
}

/**
 * The steps of all checkpoints, newest first. Throws unless every folder with a final name is
 * complete.
 */
export async function wholeCheckpoints(output: string): Promise<number[]> {
  const directory = join(output, 'checkpoints')
  const steps = await listSteps(directory)
  for (const step of steps) {
    const folder = join(directory, folderOf(step))
    for (const { name, bytes, sha256 } of (await readIndex(folder)).files) {
      const file = await open(join(folder, name))
      const found = await hashFile(file)
      await file.close()
      if (found.bytes !== bytes || found.sha256 !== sha256) throw new Error(`${join(folder, name)} is not whole`)
    }
  }
  return steps
}

/** Waits until `holds` returns true, and asks every few milliseconds. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(5)
}

/** Waits until rank 0 has done this many steps. Throws if a rank ends before. */
export async function untilStep(gang: TestGang, step: number): Promise<void> {
  await until(async () => {
    const ended = gang.children.find(({ exitCode, signalCode }) => exitCode !== null || signalCode !== null)
    if (ended) throw new Error(`a rank ended early, with ${ended.exitCode ?? ended.signalCode}:\n${gang.log}`)
    const answer: unknown = await gang.get('/progress').then(
      response => response.json(),
      () => undefined,
    )
    return typeof answer === 'object' && answer !== null && 'step' in answer && Number(answer.step) >= step
  })
}

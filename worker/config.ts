// Reads the environment of a worker and the job's spec in it. Everything is checked here, before
// the worker opens a file or a socket.

import { ENV, MIN_SECRET, PORT } from '../crds/contract.ts'
import { brokenByEnvironment } from '../crds/environment.ts'
import { type BackendName, MAX_RANKS } from '../crds/ranks.ts'
import { type Broken, brokenRules, brokenText } from '../crds/rules.ts'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { issuesText, WorkerFailure } from './failure.ts'
import { defaultThreads } from './threads.ts'

export interface WorkerConfig {
  jobName: string
  jobUid: string
  attempt: number
  rank: number
  worldSize: number
  /** The rank's number within its pod, which is also the number of its GPU. */
  localRank: number
  backend: BackendName
  /** Whether programs run as CUDA graphs. Op by op is slower, but shows which op fails. */
  graphs: boolean
  expertParallelSize: number
  rendezvous: { host: string; port: number }
  /** By this the ranks know each other. Empty if there is only one. */
  secret: string
  spec: ScMoEJobSpec
  /** Folder for checkpoints and traces; if undefined, neither is written. */
  outputDirectory: string | undefined
  /** Folder of `<builtin name>.txt`; if undefined, the folder that `scmoe run` fills. */
  dataDirectory: string | undefined
  terminationLog: string
  httpPort: number
  computeThreads: number
  /** Deadline of each collective. */
  peerTimeoutSeconds: number
  /** Time in which the ranks have to find each other. */
  rendezvousTimeoutSeconds: number
}

/** Settings for unusual machines, to be set in the pod template. They are not in the contract. */
const PEER_TIMEOUT = 'SCMOE_PEER_TIMEOUT_SECONDS'
const RENDEZVOUS_TIMEOUT = 'SCMOE_RENDEZVOUS_TIMEOUT_SECONDS'
const CUDA_GRAPHS = 'SCMOE_CUDA_GRAPHS'

type Environment = Readonly<Record<string, string | undefined>>

const bad = (message: string) => new WorkerFailure('badConfig', message)

/**
 * Reads and checks `env`. Throws a `badConfig` failure that names the variable or the field of the
 * spec, its value and what to do.
 */
export function readConfig(env: Environment): WorkerConfig {
  const jobName = required(env, ENV.jobName)
  const spec = readSpec(required(env, ENV.spec))
  demand(brokenRules(spec, jobName))
  const worldSize = integer(env, ENV.worldSize, { least: 1, most: MAX_RANKS })
  const backend = backendName(env)
  demand(brokenByEnvironment(spec, { worldSize, backend, useGpus: `start the ranks with ${ENV.backend}=cuda` }))
  return {
    jobName,
    jobUid: required(env, ENV.jobUid),
    attempt: integer(env, ENV.attempt, { least: 0, most: 2 ** 31, fallback: 0 }),
    rank: integer(env, ENV.rank, { least: 0, most: worldSize - 1 }),
    worldSize,
    localRank: integer(env, ENV.localRank, { least: 0, most: 1023, fallback: 0 }),
    backend,
    graphs: integer(env, CUDA_GRAPHS, { least: 0, most: 1, fallback: 1 }) === 1,
    expertParallelSize: spec.parallelism.expertParallelSize ?? worldSize,
    rendezvous: hostAndPort(env),
    secret: worldSize === 1 ? '' : secret(env),
    spec,
    outputDirectory: env[ENV.outputDirectory] || undefined,
    dataDirectory: env[ENV.dataDirectory] || undefined,
    terminationLog: env[ENV.terminationLog] || '/dev/termination-log',
    httpPort: integer(env, ENV.httpPort, { least: 0, most: 65_535, fallback: PORT.http }),
    computeThreads: integer(env, ENV.computeThreads, { least: 1, most: 1024, fallback: defaultThreads() }),
    peerTimeoutSeconds: integer(env, PEER_TIMEOUT, { least: 1, most: 86_400, fallback: 60 }),
    rendezvousTimeoutSeconds: integer(env, RENDEZVOUS_TIMEOUT, { least: 1, most: 86_400, fallback: 300 }),
  }
}

/** The API server asks the same rules; a worker that is started by hand has no API server. */
function demand(broken: readonly Broken[]): void {
  if (broken.length > 0) throw bad(brokenText(broken))
}

function readSpec(text: string): ScMoEJobSpec {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw bad(
      `${ENV.spec} is not JSON (${error instanceof Error ? error.message : String(error)}): it must hold the job's spec.`,
    )
  }
  const parsed = ScMoEJobSpec.safeParse(json)
  if (parsed.success) return parsed.data
  throw bad(issuesText(parsed.error, json, 'spec'))
}

function required(env: Environment, name: string): string {
  const value = env[name]
  if (value) return value
  throw bad(`${name} is not set: the operator and \`scmoe run\` set it; see crds/contract.ts for what a worker needs.`)
}

/** An error does not show the value, because logs have other readers than Secrets. */
function secret(env: Environment): string {
  const value = required(env, ENV.secret)
  if (value.length >= MIN_SECRET) return value
  throw bad(
    `${ENV.secret} has ${value.length} characters: give all ranks of the job the same random text of at least ${MIN_SECRET}.`,
  )
}

function integer(env: Environment, name: string, range: { least: number; most: number; fallback?: number }): number {
  const text = env[name] || undefined
  if (text === undefined && range.fallback !== undefined) return range.fallback
  const value = /^\d+$/.test(text ?? required(env, name)) ? Number(text) : Number.NaN
  if (value >= range.least && value <= range.most) return value
  throw bad(`${name} is "${text}": it must be an integer from ${range.least} to ${range.most}.`)
}

function backendName(env: Environment): BackendName {
  const text = env[ENV.backend] || 'cpu'
  if (text === 'cpu' || text === 'cuda') return text
  throw bad(`${ENV.backend} is "${text}": it must be cpu or cuda.`)
}

function hostAndPort(env: Environment): { host: string; port: number } {
  const text = required(env, ENV.rendezvous)
  const match = /^(\[(?<v6>[0-9a-fA-F:.]+)\]|(?<name>[^:\s]+)):(?<port>\d{1,5})$/.exec(text)
  const port = Number(match?.groups?.['port'])
  const host = match?.groups?.['v6'] ?? match?.groups?.['name']
  if (host !== undefined && port >= 1 && port <= 65_535) return { host, port }
  throw bad(`${ENV.rendezvous} is "${text}": it must be host:port, with a port from 1 to 65535.`)
}

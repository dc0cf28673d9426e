// What a worker is told: the environment of the contract and the job's spec as JSON. Everything is checked here, before anything is opened.

import { z } from 'zod'
import { ENV, PORT } from '../crds/contract.ts'
import { resolveModel } from '../crds/presets.ts'
import { type BackendName, worldSizeOf } from '../crds/ranks.ts'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { WorkerFailure } from './failure.ts'
import { defaultThreads } from './threads.ts'

export interface WorkerConfig {
  jobName: string
  jobUid: string
  attempt: number
  rank: number
  worldSize: number
  /** Number within its pod, and of its GPU. */
  localRank: number
  backend: BackendName
  /** Whether programs run as CUDA graphs; op by op is slower and shows where an error is. */
  graphs: boolean
  expertParallelSize: number
  rendezvous: { host: string; port: number }
  spec: ScMoEJobSpec
  /** Absent: neither checkpoints nor traces are written. */
  outputDirectory: string | undefined
  /** Where `<builtin name>.txt` lies; absent: the folder that `scmoe run` fills. */
  dataDirectory: string | undefined
  terminationLog: string
  httpPort: number
  computeThreads: number
  /** Deadline of every collective. */
  peerTimeoutSeconds: number
  /** How long the ranks may take to find each other. */
  rendezvousTimeoutSeconds: number
}

/** Not part of the contract, for unusual machines: set in the pod template. */
const PEER_TIMEOUT = 'SCMOE_PEER_TIMEOUT_SECONDS'
const RENDEZVOUS_TIMEOUT = 'SCMOE_RENDEZVOUS_TIMEOUT_SECONDS'
const CUDA_GRAPHS = 'SCMOE_CUDA_GRAPHS'

type Environment = Readonly<Record<string, string | undefined>>

const bad = (message: string) => new WorkerFailure('badConfig', message)

/** Reads and checks `env`. Throws a `badConfig` failure that names the variable or the spec field, its value and the remedy. */
export function readConfig(env: Environment): WorkerConfig {
  const spec = readSpec(required(env, ENV.spec))
  const worldSize = integer(env, ENV.worldSize, { least: 1, most: 1024 })
  const config: WorkerConfig = {
    jobName: required(env, ENV.jobName),
    jobUid: required(env, ENV.jobUid),
    attempt: integer(env, ENV.attempt, { least: 0, most: 2 ** 31, fallback: 0 }),
    rank: integer(env, ENV.rank, { least: 0, most: worldSize - 1 }),
    worldSize,
    localRank: integer(env, ENV.localRank, { least: 0, most: 1023, fallback: 0 }),
    backend: backendName(env),
    graphs: integer(env, CUDA_GRAPHS, { least: 0, most: 1, fallback: 1 }) === 1,
    expertParallelSize: spec.parallelism.expertParallelSize ?? worldSize,
    rendezvous: hostAndPort(env),
    spec,
    outputDirectory: env[ENV.outputDirectory] || undefined,
    dataDirectory: env[ENV.dataDirectory] || undefined,
    terminationLog: env[ENV.terminationLog] || '/dev/termination-log',
    httpPort: integer(env, ENV.httpPort, { least: 0, most: 65_535, fallback: PORT.http }),
    computeThreads: integer(env, ENV.computeThreads, { least: 1, most: 1024, fallback: defaultThreads() }),
    peerTimeoutSeconds: integer(env, PEER_TIMEOUT, { least: 1, most: 86_400, fallback: 60 }),
    rendezvousTimeoutSeconds: integer(env, RENDEZVOUS_TIMEOUT, { least: 1, most: 86_400, fallback: 300 }),
  }
  checkTogether(config)
  return config
}

/** Rules between fields. The API server enforces the same ones with CEL; a worker started by hand has no API server. */
function checkTogether({ spec, worldSize, expertParallelSize, backend }: WorkerConfig): void {
  const { training } = spec
  const model = resolveModel(spec.model)
  const parts = worldSize * training.microBatches
  const rules: [boolean, string][] = [
    [
      worldSize === worldSizeOf(spec),
      `${ENV.worldSize} is ${worldSize}, but spec.workers (replicas ${spec.workers.replicas}, gpusPerWorker ${spec.workers.gpusPerWorker}) makes ${worldSizeOf(spec)} ranks: start as many.`,
    ],
    [
      worldSize % expertParallelSize === 0,
      `spec.parallelism.expertParallelSize is ${expertParallelSize}, which does not divide the ${worldSize} ranks: use a divisor of it.`,
    ],
    [
      model.kind === 'Dense' || model.experts % expertParallelSize === 0,
      `spec.model.experts is ${model.experts}, which ${expertParallelSize} expert-parallel ranks cannot share equally: use a multiple, or set spec.parallelism.expertParallelSize.`,
    ],
    [
      training.globalBatchSequences % parts === 0,
      `spec.training.globalBatchSequences is ${training.globalBatchSequences}, which is not a multiple of the ${worldSize} ranks${training.microBatches === 1 ? '' : ` times spec.training.microBatches ${training.microBatches}`}.`,
    ],
    [
      training.precision === 'float32' || backend === 'cuda',
      `spec.training.precision is ${training.precision}, but this rank computes on a CPU (${ENV.backend} is ${backend}), in float32 alone: set spec.workers.gpusPerWorker to the GPUs of each worker, or use float32.`,
    ],
    [
      model.hiddenSize % model.heads === 0,
      `spec.model.heads is ${model.heads}, which does not divide spec.model.hiddenSize ${model.hiddenSize}.`,
    ],
    [
      model.blocks % model.moeLayerFrequency === 0,
      `spec.model.blocks is ${model.blocks}, which is not a multiple of spec.model.moeLayerFrequency ${model.moeLayerFrequency}.`,
    ],
    [
      model.topK <= model.experts,
      `spec.model.topK is ${model.topK}, more than the ${model.experts} experts: lower it or raise spec.model.experts.`,
    ],
    [
      spec.data.builtin === undefined || spec.data.path === undefined,
      'spec.data has both builtin and path: leave one of them out.',
    ],
  ]
  for (const [holds, message] of rules) if (!holds) throw bad(message)
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
  throw bad(describeIssues(parsed.error, json))
}

/** One line per wrong field: `spec.training.steps is "ten": expected number …`. */
function describeIssues(error: z.ZodError, input: unknown): string {
  return error.issues
    .map(issue => {
      const field = ['spec', ...issue.path].join('.')
      let value = input
      for (const key of issue.path)
        value = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined
      const shown = value === undefined ? 'missing' : JSON.stringify(value).slice(0, 80)
      return issue.code === 'unrecognized_keys'
        ? `${field} has unknown fields ${issue.keys.join(', ')}: remove them or correct their spelling.`
        : `${field} is ${shown}: ${issue.message}.`
    })
    .join('\n')
}

function required(env: Environment, name: string): string {
  const value = env[name]
  if (value) return value
  throw bad(`${name} is not set: the operator and \`scmoe run\` set it; see crds/contract.ts for what a worker needs.`)
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

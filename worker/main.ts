// The worker: one rank of a job, from its environment to its exit code.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { ENV, EXIT } from '../crds/contract.ts'
import type { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { readConfig, type WorkerConfig } from './config.ts'
import { dataPath, TokenData } from './data/data.ts'
import { createEngine, type DeviceOptions, type Engine } from './engine.ts'
import { asFailure, errnoText, WorkerFailure } from './failure.ts'
import { modelConfig } from './model/config.ts'
import { isLoopback } from './ranks/hosts.ts'
import { hasSeveralRanks, runPod } from './ranks/pod.ts'
import { meet } from './ranks/rendezvous.ts'
import { logFields, logOutput } from './report/log-output.ts'
import { WorkerMetrics } from './report/metrics.ts'
import { RunRecord } from './report/record.ts'
import { type Reported, serveReport } from './report/server.ts'
import { writeTermination } from './report/termination.ts'
import { onStopSignals } from './stop.ts'
import { type Ending, train } from './train/train.ts'

// A pod with several ranks starts each of them as a child of this process, which is then no rank.
if (hasSeveralRanks(process.env)) process.exit(await runPod(import.meta.filename, process.env))

const log = pino(
  {
    base: { rank: Number(process.env[ENV.rank] ?? 0) },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { log: logFields },
  },
  logOutput(process.stdout.fd),
)
/** Names of NCCL's CTA policies; the index is NCCL's number. */
const CTA_POLICIES = ['Default', 'Efficiency', 'Zero']
/** Present as soon as they exist, so that `end` can use them. */
const running: { engine?: Engine; record?: RunRecord } = {}

const stopSignal = onStopSignals(
  () => end(new WorkerFailure('terminated', 'Told to stop twice: ended at once, without a checkpoint.')),
  (name, again) =>
    log.warn(
      again ? `${name} again: ending at once` : `${name}: stopping after this step; a second ${name} ends at once`,
    ),
)

// The channel closes if `scmoe run` started this process and is gone: nothing else would stop it.
process.on('disconnect', () => end(new WorkerFailure('terminated', 'The process that started this rank is gone.')))

process.on('uncaughtException', error => end(asFailure(error)))

try {
  const config = readConfig(process.env)
  const ending = await work(config, stopSignal)
  end(
    ending === 'done'
      ? undefined
      : new WorkerFailure('terminated', `Told to stop: stopped after step ${running.record?.step}.`),
  )
} catch (error) {
  end(asFailure(error))
}

async function work(config: WorkerConfig, signal: AbortSignal): Promise<Ending> {
  const { spec, rank, worldSize } = config
  const record = new RunRecord(config)
  running.record = record
  const metrics = new WorkerMetrics(record)
  const reported: Reported = { record, metrics, rank, ready: false, trace: undefined }
  await serveReport(reported, { port: config.httpPort, ...localOnly(config) })

  // Everything that can be wrong with this rank alone is checked before it waits for the others.
  const model = modelConfig(spec, worldSize)
  const path = dataPath(spec.data, config.dataDirectory, join(import.meta.dirname, '../build/data'))
  const data = new TokenData(path, {
    tokens: spec.data.tokens,
    vocabulary: model.vocabulary,
    sequenceLength: model.sequence,
  })
  if (spec.data.tokens === 'bytes' && data.look === 'binary')
    log.warn(`${path} has zero bytes, which text does not have: if it holds token numbers, set spec.data.tokens`)
  makeOutputDirectory(config)
  const engine = createEngine({
    backend: config.backend,
    device: { index: config.localRank, graphs: config.graphs, ...exchangeOf(spec) },
    rank,
    worldSize,
    expertParallelSize: config.expertParallelSize,
    computeThreads: config.computeThreads,
    timeoutMilliseconds: config.peerTimeoutSeconds * 1000,
  })
  running.engine = engine
  log.info({ worldSize, expertParallelSize: config.expertParallelSize, data: path }, engine.description)

  const { port } = await engine.listen()
  const mesh = await meet({
    ...config,
    enginePort: port,
    deadlineMilliseconds: config.rendezvousTimeoutSeconds * 1000,
    signal,
    log: message => log.info(message),
  })
  await engine.connect(mesh.peers, mesh.token)
  reported.ready = true
  return train({
    config,
    model,
    engine,
    data,
    record,
    metrics,
    log,
    stopRequested: () => signal.aborted,
    traced: trace => {
      reported.trace = trace
    },
  })
}

/** How GPUs exchange rows. The CPU backend ignores these options. */
function exchangeOf({ overlap: { exchange, nccl = {} } }: ScMoEJobSpec): Partial<DeviceOptions> {
  const { maxCTAs, ctaPolicy } = nccl
  return {
    padded: exchange === 'Padded',
    ...(maxCTAs !== undefined && { maxCtas: maxCTAs }),
    ...(ctaPolicy !== undefined && { ctaPolicy: CTA_POLICIES.indexOf(ctaPolicy) }),
  }
}

/** If the ranks meet on the loopback address, the readers of reports are on this machine too. */
function localOnly({ rendezvous: { host } }: WorkerConfig): { host?: string } {
  return isLoopback(host) ? { host } : {}
}

function makeOutputDirectory({ outputDirectory }: WorkerConfig): void {
  if (outputDirectory === undefined) return
  try {
    mkdirSync(join(outputDirectory, 'checkpoints'), { recursive: true })
  } catch (error) {
    throw new WorkerFailure(
      'checkpoint',
      `The output folder ${outputDirectory} cannot be created or written: ${errnoText(error)}. Check the volume and its permissions.`,
    )
  }
}

/** Logs why the worker ends, writes the termination message and exits with the contract's code. */
function end(failure: WorkerFailure | undefined): never {
  const rank = Number(process.env[ENV.rank] ?? 0)
  if (failure?.reason === 'terminated') log.info(failure.message)
  else if (failure) log.fatal({ reason: failure.reason, op: failure.op, peer: failure.peer }, failure.message)
  writeTermination(process.env[ENV.terminationLog], {
    rank: Number.isSafeInteger(rank) ? rank : 0,
    ...(running.record && { progress: running.record.progress() }),
    ...(failure && { failure }),
  })
  running.engine?.abort()
  process.exit(EXIT[failure?.reason ?? 'ok'].code)
}

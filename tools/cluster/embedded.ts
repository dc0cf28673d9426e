// The cluster without Docker, as its caller sees it. It starts the keeper (keeper.ts), hands it the
// listening socket of the API server, and records its processes in the state folder.

import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import type { Server } from 'node:net'
import { join } from 'node:path'
import { heldPort } from '../free-port.ts'
import { pauseImage } from '../images/pause.ts'
import { allProcesses, identify, isAlive, run } from '../process.ts'
import { ApiClient } from './api-client.ts'
import { type Mode, NODE_NAME, PAUSE_IMAGE } from './config.ts'
import type { FromKeeper, Plan, ToKeeper } from './keeper.ts'
import { inNewNamespaces } from './namespaces.ts'
import { binaries, type Progress } from './programs/binaries.ts'
import { API_BINARIES, NODE_BINARIES } from './programs/modules.ts'
import { cniPlugins, missingPackages, packagesError, searchPath } from './programs/packages.ts'
import type { ClusterAccess, Provider, Status, UpRequest } from './provider.ts'
import { type ClusterRecord, clean, clusterId, readRecord, writeRecord } from './state.ts'
import { tail } from './supervisor.ts'

// Below the range that the kernel uses for outgoing connections, so that only another server can
// hold one of these ports.
const PORTS = { first: 20_000, count: 10_000 }

/** The inputs of a start that take minutes to make the first time. */
type Prepared = Pick<Plan, 'pauseImage'> & Pick<Plan['layout'], 'binaries' | 'cniPlugins'>

export const embedded: Provider = {
  prepare: async request => {
    const prepared = await prepareEmbedded(request.mode, request.onProgress)
    return () => start(request, prepared)
  },
  // Everything that belongs to it is a process, a mount or a control group, which `clean` ends.
  end: () => Promise.resolve(),
  status,
}

/** Builds the programs of a cluster unless they are in the cache. */
export async function prepareEmbedded(mode: Mode, onProgress: Progress): Promise<Prepared> {
  requireMachine(mode)
  if (mode === 'api') {
    return { binaries: await binaries(API_BINARIES, onProgress, process.env['KUBEBUILDER_ASSETS']), cniPlugins: '' }
  }
  const programs = await binaries(NODE_BINARIES, onProgress)
  return { binaries: programs, cniPlugins: cniPlugins() ?? '', pauseImage: await pauseImage(PAUSE_IMAGE) }
}

async function start(request: UpRequest, prepared: Prepared): Promise<ClusterAccess> {
  const { mode, stateDir } = request
  const found = readRecord(stateDir)
  if (found !== undefined && (await isHealthy(stateDir, found))) {
    if (found.mode === mode) return accessTo(stateDir, found)
    throw new Error(
      `'${stateDir}' holds a running cluster of mode '${found.mode}'; end it, or choose another folder with --state`,
    )
  }
  await clean(stateDir)
  const { server, port } = await heldPort(PORTS)
  const { pauseImage: image, ...files } = prepared
  const layout = { mode, port, cgroup: clusterId(stateDir), ...files }
  const plan: Plan = { stateDir, layout, ...(image === undefined ? {} : { pauseImage: image }) }
  try {
    return accessTo(stateDir, await launch(request, plan, server))
  } catch (error) {
    await clean(stateDir)
    throw error
  }
}

function requireMachine(mode: Mode): void {
  const problem = packagesError(missingPackages(mode))
  if (problem !== undefined) throw new Error(problem)
  if (mode === 'node' && process.getuid?.() !== 0) {
    throw new Error(
      "a node needs root for its namespaces and containers; run as root, or start Docker and kind, or use mode 'api'",
    )
  }
}

async function launch(request: UpRequest, plan: Plan, listener: Server): Promise<ClusterRecord> {
  const { mode, stateDir } = request
  const record: ClusterRecord = { provider: 'embedded', mode, port: plan.layout.port, processes: [], ready: false }
  // The record comes first: only a folder with a record may be removed.
  writeRecord(stateDir, record)
  const keeper = spawnKeeper(mode, stateDir)
  try {
    const next = messages(request, keeper)
    await next('hello')
    // The first process inside the namespaces is the shell before the keeper. It has a pid out here
    // as well, by which it can be killed.
    const pid = keeper.pid ?? 0
    const inside = mode === 'api' ? [] : allProcesses().filter(p => p.parent === pid)
    const started: ClusterRecord = { ...record, processes: [identify(pid), ...inside.map(p => identify(p.pid))] }
    writeRecord(stateDir, started)
    await handOver(keeper, plan, listener)
    await next('ready')
    const ready = { ...started, ready: true }
    writeRecord(stateDir, ready)
    if (request.lifetime === 'detached') await tell(keeper, { type: 'detach' })
    return ready
  } catch (error) {
    keeper.kill('SIGKILL')
    throw error
  } finally {
    keeper.removeAllListeners()
    keeper.channel?.unref()
    keeper.unref()
    listener.close()
  }
}

function spawnKeeper(mode: Mode, stateDir: string): ChildProcess {
  mkdirSync(join(stateDir, 'logs'), { recursive: true })
  const log = openSync(join(stateDir, 'logs', 'keeper.log'), 'a')
  const node = [process.execPath, join(import.meta.dirname, 'keeper.ts')]
  const [command = '', ...args] = mode === 'node' ? inNewNamespaces(node) : node
  const env = { ...process.env, PATH: searchPath(), NODE_OPTIONS: '' }
  const child = spawn(command, args, { env, detached: true, cwd: '/', stdio: ['ignore', log, log, 'ipc'] })
  closeSync(log)
  return child
}

/** In mode `api` the API server takes the port itself; in mode `node` the keeper listens on it. */
async function handOver(keeper: ChildProcess, plan: Plan, listener: Server): Promise<void> {
  const message: ToKeeper = { type: 'start', plan }
  if (plan.layout.mode === 'node') return tell(keeper, message, listener)
  await new Promise(resolve => listener.close(resolve))
  return tell(keeper, message)
}

function tell(keeper: ChildProcess, message: ToKeeper, listener?: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    keeper.send(message, listener, error => (error === null ? resolve() : reject(error)))
  })
}

/**
 * Passes progress on, and returns a function that waits for a type of message and rejects if the
 * keeper fails or ends.
 */
function messages(request: UpRequest, keeper: ChildProcess): (type: FromKeeper['type']) => Promise<void> {
  const arrived = new EventEmitter()
  const failure = new Promise<never>((_, reject) => {
    keeper.on('message', (message: FromKeeper) => {
      if (message.type === 'progress') request.onProgress(message.line)
      else if (message.type === 'failed') reject(new Error(`the cluster did not start: ${message.message}`))
      else arrived.emit(message.type)
    })
    keeper.once('error', reject)
    keeper.once('exit', (code, signal) => {
      const log = tail(readFileSync(join(request.stateDir, 'logs', 'keeper.log'), 'utf8'))
      reject(
        new Error(`the cluster's keeper ended with ${signal ?? `exit code ${code}`}${log === '' ? '' : `:\n${log}`}`),
      )
    })
  })
  failure.catch(() => {})
  return async type => {
    await Promise.race([once(arrived, type), failure])
  }
}

function accessTo(stateDir: string, record: ClusterRecord): ClusterAccess {
  const inside = record.processes[1]
  const socket = join(stateDir, 'containerd.sock')
  return {
    kubeconfig: join(stateDir, 'kubeconfig'),
    enter: inside === undefined ? [] : ['nsenter', '--target', String(inside.pid), '--net', '--'],
    imageImport: async tar => {
      if (record.mode === 'api')
        throw new Error("a cluster of mode 'api' runs no pods and takes no images; start one of mode 'node'")
      await run('ctr', ['--address', socket, '--namespace', 'k8s.io', 'images', 'import', tar])
    },
  }
}

async function isHealthy(stateDir: string, record: ClusterRecord): Promise<boolean> {
  if (!record.ready || !record.processes.every(isAlive)) return false
  const api = new ApiClient(join(stateDir, 'kubeconfig'))
  try {
    return (await api.isReady()) && (record.mode === 'api' || (await api.isNodeReady(NODE_NAME)))
  } catch {
    return false
  } finally {
    api.close()
  }
}

async function status(stateDir: string, record: ClusterRecord): Promise<Status> {
  const healthy = await isHealthy(stateDir, record)
  const alive = record.processes.filter(isAlive).length
  return {
    provider: 'embedded',
    mode: record.mode,
    healthy,
    details: [
      `embedded cluster, mode ${record.mode}, ${healthy ? 'healthy' : 'not healthy'}`,
      `state ${stateDir}`,
      `server https://127.0.0.1:${record.port}`,
      `processes ${record.processes.map(p => p.pid).join(', ')} (${alive} of ${record.processes.length} alive)`,
    ],
  }
}

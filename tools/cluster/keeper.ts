// The process that keeps the cluster: it starts every program, waits until all are ready, and
// stays. It ends with the process that started it unless it was detached, and all its programs end
// with it.

import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { Server } from 'node:net'
import { join } from 'node:path'
import { run } from '../process.ts'
import { ApiClient, waitUntil } from './api-client.ts'
import { bootstrapObjects, VOLUMES, volumeFolder } from './bootstrap.ts'
import { makeCgroups } from './cgroups.ts'
import { apiserver, etcd, type Layout, NODE_NAME, nodeComponents, nodeFiles, SERVICE_ADDRESS } from './config.ts'
import { forward } from './forward.ts'
import { enterMounts, enterNetwork, INSIDE_ROOT, NODE_ADDRESS } from './namespaces.ts'
import { kubeconfig, leaves, writePki } from './pki.ts'
import { Supervisor } from './supervisor.ts'

/** `layout.root` follows from the mode. `pauseImage` is the path of a docker-archive. */
export type Plan = {
  readonly stateDir: string
  readonly layout: Omit<Layout, 'root'>
  readonly pauseImage?: string
}

export type ToKeeper = { readonly type: 'start'; readonly plan: Plan } | { readonly type: 'detach' }

export type FromKeeper =
  | { readonly type: 'hello' }
  | { readonly type: 'progress'; readonly line: string }
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly message: string }

const USERS = ['admin', 'controller-manager', 'scheduler', 'kubelet', 'proxy', 'coredns']

// Generous, because the machine may be building other programs at the same time.
const READY_MILLISECONDS = 120_000

let detached = false

function send(message: FromKeeper): void {
  if (process.connected) process.send?.(message)
}

async function writeState(layout: Layout): Promise<void> {
  const at = (path: string): string => join(layout.root, path)
  const cluster = { node: NODE_NAME, nodeAddress: NODE_ADDRESS, serviceAddress: SERVICE_ADDRESS }
  await writePki(at('pki'), leaves(cluster))
  const server = `https://127.0.0.1:${layout.port}`
  for (const user of USERS) {
    writeFileSync(at(`pki/${user}.kubeconfig`), kubeconfig(at('pki'), user, server), { mode: 0o600 })
  }
  writeFileSync(at('kubeconfig'), kubeconfig(at('pki'), 'admin', server), { mode: 0o600 })
  if (layout.mode === 'api') return
  mkdirSync(at('config/cni'), { recursive: true })
  for (const [path, text] of Object.entries(nodeFiles(layout))) writeFileSync(at(path), text)
  linkPlugins(layout, at('cni-bin'))
  for (let index = 1; index <= VOLUMES; index++) {
    const folder = volumeFolder(layout.root, index)
    mkdirSync(folder, { recursive: true })
    // Pods that do not run as root write here, and the umask would forbid that.
    chmodSync(folder, 0o777)
  }
}

/** Puts the machine's plugins and ours into one folder, because containerd reads only one. */
function linkPlugins(layout: Layout, folder: string): void {
  mkdirSync(folder)
  for (const name of readdirSync(layout.cniPlugins)) symlinkSync(join(layout.cniPlugins, name), join(folder, name))
  copyFileSync(join(import.meta.dirname, 'cni-shaping.sh'), join(folder, 'shaping'))
}

async function startApi(layout: Layout, supervisor: Supervisor): Promise<ApiClient> {
  supervisor.start(etcd(layout))
  supervisor.start(apiserver(layout))
  const api = new ApiClient(join(layout.root, 'kubeconfig'))
  await waitUntil('API server ready', READY_MILLISECONDS, () => api.isReady())
  send({ type: 'progress', line: 'API server ready' })
  return api
}

async function importImage(layout: Layout, image: string): Promise<void> {
  const socket = join(layout.root, 'containerd.sock')
  await waitUntil('containerd ready', READY_MILLISECONDS, async () => existsSync(socket))
  await run('ctr', ['--address', socket, '--namespace', 'k8s.io', 'images', 'import', image])
}

async function startNode(layout: Layout, supervisor: Supervisor, pauseImage: string): Promise<void> {
  const [containerd, ...rest] = nodeComponents(layout)
  if (containerd !== undefined) supervisor.start(containerd)
  const [api] = await Promise.all([startApi(layout, supervisor), importImage(layout, pauseImage)])
  // The rights of DNS come before DNS: after a refusal it asks again only seconds later.
  await Promise.all(bootstrapObjects(layout.root).map(object => api.create(object)))
  for (const component of rest) supervisor.start(component)
  await waitUntil('node Ready', READY_MILLISECONDS, () => api.isNodeReady(NODE_NAME))
  send({ type: 'progress', line: 'node Ready' })
  // A pod is refused before its service account exists.
  const account = '/api/v1/namespaces/default/serviceaccounts/default'
  await waitUntil('default service account', READY_MILLISECONDS, () => api.exists(account))
  await waitUntil('DNS ready', READY_MILLISECONDS, async () => (await fetch(`http://${NODE_ADDRESS}:8181/ready`)).ok)
  api.close()
}

async function start({ stateDir, layout: given, pauseImage }: Plan, door: unknown): Promise<void> {
  const layout: Layout = { ...given, root: given.mode === 'node' ? INSIDE_ROOT : stateDir }
  const logs = join(layout.root, 'logs')
  if (layout.mode === 'node') {
    await Promise.all([enterMounts(stateDir), enterNetwork()])
    makeCgroups(layout.cgroup)
  }
  mkdirSync(logs, { recursive: true })
  await writeState(layout)
  const supervisor = new Supervisor(logs)
  if (layout.mode === 'api') {
    await Promise.race([startApi(layout, supervisor).then(api => api.close()), supervisor.failure])
  } else {
    if (!(door instanceof Server) || pauseImage === undefined)
      throw new Error('a node needs a listening socket and an image')
    forward(door, { host: '127.0.0.1', port: layout.port })
    await Promise.race([startNode(layout, supervisor, pauseImage), supervisor.failure])
  }
  supervisor.settle()
  send({ type: 'ready' })
}

process.on('disconnect', () => {
  if (!detached) process.exit(1)
})
process.on('message', (message: ToKeeper, door: unknown) => {
  if (message.type === 'detach') {
    detached = true
    process.disconnect()
    return
  }
  start(message.plan, door).catch((error: unknown) => {
    send({ type: 'failed', message: error instanceof Error ? error.message : String(error) })
    setImmediate(() => process.exit(1))
  })
})
send({ type: 'hello' })

// A real image registry for tests, Debian's docker-registry, in the network of a cluster.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cacheRoot } from '../../tools/cache.ts'
import type { Cluster } from '../../tools/cluster/cluster.ts'
import { once } from '../../tools/cluster/programs/built.ts'
import { run } from '../../tools/process.ts'

/** The registry's name on the node. Container runtimes do without TLS on the node itself. */
export const REGISTRY = '127.0.0.1:5000'
const READY_MILLISECONDS = 10_000

export type Registry = { stop(): Promise<void> }

/**
 * The path of the program. The package is unpacked into the cache and not installed, because its
 * installation would start a service on this machine.
 */
async function program(): Promise<string> {
  const folder = join(cacheRoot(), 'docker-registry')
  mkdirSync(folder, { recursive: true })
  return once(join(folder, 'registry'), async temporary => {
    const work = mkdtempSync(join(folder, 'package-'))
    try {
      await run('sh', ['-c', `cd '${work}' && apt-get download -qq docker-registry`])
      const archive = readdirSync(work).find(name => name.endsWith('.deb'))
      if (archive === undefined) throw new Error('apt-get download docker-registry left no package')
      await run('dpkg-deb', ['--extract', join(work, archive), work])
      await run('mv', [join(work, 'usr/bin/docker-registry'), temporary])
    } finally {
      rmSync(work, { recursive: true })
    }
  })
}

/** Starts an empty registry at REGISTRY inside the cluster's network. */
export async function startRegistry({ enter }: Cluster): Promise<Registry> {
  const path = await program()
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-registry-'))
  const config = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: join(folder, 'data') } },
    http: { addr: REGISTRY },
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  const [command, ...words] = [...enter, path, 'serve', join(folder, 'config.json')]
  const child = spawn(command, words, { stdio: ['ignore', 'ignore', 'pipe'] })
  const stop = async () => {
    await ended(child)
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await ready(enter, child)
  } catch (error) {
    await stop()
    throw error
  }
  return { stop }
}

async function ready(enter: readonly string[], child: ChildProcess): Promise<void> {
  let said = ''
  child.stderr?.on('data', chunk => (said += String(chunk)))
  const deadline = performance.now() + READY_MILLISECONDS
  const look = `fetch('http://${REGISTRY}/v2/').then(({ ok }) => process.exit(ok ? 0 : 1))`
  const [command, ...words] = [...enter, process.execPath, '-e', look]
  while (performance.now() < deadline && child.exitCode === null) {
    const answered = await run(command, words).then(
      () => true,
      () => false,
    )
    if (answered) return
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  throw new Error(`the registry does not answer: ${said}`)
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGKILL')
  await exit
}

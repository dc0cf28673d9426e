// Finds the cluster's programs in KUBEBUILDER_ASSETS or in the cache, or builds them from pinned Go
// modules.

import { execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, writeAtomically } from '../../cache.ts'
import { withLock } from '../../lock.ts'
import { type BinaryName, controlPlaneKey, GO_FOLDER, type GoBuild, goBuild } from './modules.ts'

/** Takes a line about the current step. `update` marks a line that replaces the line before it. */
export type Progress = (line: string, update?: boolean) => void

const TICK_MILLISECONDS = 5000

/** The folder of the cache that holds this checkout's programs. */
function binaryFolder(): string {
  return join(cacheRoot(), controlPlaneKey(), 'bin')
}

/**
 * The absolute paths of the named programs. Missing programs are built, which takes minutes and
 * needs Go and its module proxy. `assets` is a folder with programs, such as KUBEBUILDER_ASSETS of
 * controller-runtime's envtest.
 */
export async function binaries<Name extends BinaryName>(
  names: readonly Name[],
  onProgress: Progress = () => {},
  assets?: string,
): Promise<Record<Name, string>> {
  const folder = binaryFolder()
  const path = (name: Name): string => {
    const asset = assets === undefined ? undefined : join(assets, name)
    return asset !== undefined && existsSync(asset) ? asset : join(folder, name)
  }
  if (names.some(name => !existsSync(path(name)))) {
    const waiting = (): void => onProgress('waiting for another process that builds the control plane')
    await withLock(
      folder,
      async () => {
        const missing = names.filter(name => !existsSync(path(name)))
        for (const [index, name] of missing.entries()) {
          const label = `building ${name} ${index + 1}/${missing.length}`
          await writeAtomically(join(folder, name), to => compile(goBuild(name), to, { label, onProgress }))
        }
      },
      waiting,
    )
  }
  const paths: Partial<Record<Name, string>> = {}
  for (const name of names) paths[name] = path(name)
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the loop has set every name
  return paths as Record<Name, string>
}

/** Runs `go build` and reports every few seconds how long it has taken. */
export async function compile(
  build: GoBuild,
  output: string,
  report: { label: string; onProgress: Progress },
): Promise<void> {
  requireGo()
  const started = performance.now()
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`
  report.onProgress(`${report.label} …`)
  const ticker = setInterval(() => report.onProgress(`${report.label} … ${seconds()}`, true), TICK_MILLISECONDS)
  const tags = build.tags === undefined ? [] : ['-tags', build.tags]
  const args = ['build', '-trimpath', ...tags, '-ldflags', build.ldflags, '-o', output, build.package]
  const child = spawn('go', args, {
    cwd: join(GO_FOLDER, build.module),
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=readonly' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', text => {
    errors = (errors + text).slice(-4000)
  })
  try {
    const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
    if (code !== 0) throw new Error(`${report.label}: go build ended with ${code}:\n${errors}`)
  } finally {
    clearInterval(ticker)
  }
  report.onProgress(`${report.label} … ${seconds()}, done`, true)
}

function requireGo(): void {
  try {
    execFileSync('go', ['version'], { stdio: 'ignore' })
  } catch (error) {
    throw new Error(
      "the control plane is built from Go modules, and 'go' does not start. Possible solutions: install Go 1.26 or newer " +
        'and put it on PATH; set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver (API level only); ' +
        'start Docker and kind, or point KUBECONFIG to a cluster and pass --provider existing.',
      { cause: error },
    )
  }
}

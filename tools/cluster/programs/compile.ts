// Runs `go build`, reports how far it is, and ends it when this process is told to end.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { GO_FOLDER, type GoBuild } from './modules.ts'

/** Takes a line about the current step. `update` marks a line that replaces the line before it. */
export type Progress = (line: string, update?: boolean) => void

/** How far some builds are together. Counts are of Go packages. */
export interface Meter {
  total: number
  /** Packages that were compiled. Go's own cache has the others. */
  compiled: number
  /** Packages of the builds that have ended, compiled or not. */
  ended: number
  /** Milliseconds, of the same clock as `performance.now()`. */
  started: number
}

const TICK_MILLISECONDS = 5000
/** The time of fewer packages says nothing about that of the others. */
const ENOUGH_PACKAGES = 20
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * The seconds until all builds will have ended if packages are compiled as fast as before;
 * undefined before there is enough to judge from. `current` are the packages of the present build
 * that were compiled. Pure.
 */
export function secondsLeft(
  { total, compiled, ended, started }: Meter,
  current: number,
  now: number,
): number | undefined {
  if (compiled < ENOUGH_PACKAGES) return undefined
  return ((now - started) / 1000) * (Math.max(0, total - ended - current) / compiled)
}

/** A rough time for people: to ten seconds, from 100 seconds on to minutes. Pure. */
export function roughly(seconds: number): string {
  if (seconds >= 100) return `about ${Math.round(seconds / 60)} min`
  return `about ${Math.max(10, Math.round(seconds / 10) * 10)} s`
}

/** Counts the packages of some builds, for which Go first downloads their modules. */
export async function meterOf(builds: readonly GoBuild[], onProgress: Progress): Promise<Meter> {
  let total = 0
  for (const build of builds) total += (await packagesOf(build, onProgress)).length
  return { total, compiled: 0, ended: 0, started: performance.now() }
}

async function packagesOf(build: GoBuild, onProgress: Progress): Promise<string[]> {
  let downloads = 0
  const { output } = await go(['list', '-deps', ...tagsOf(build), build.package], build, line => {
    if (line.startsWith('go: downloading')) onProgress(`downloading Go modules … ${++downloads}`, true)
  })
  return output.split('\n').filter(line => line !== '')
}

const tagsOf = ({ tags }: GoBuild): string[] => (tags === undefined ? [] : ['-tags', tags])

/** Runs `go build` and reports every few seconds how far it is. */
export async function compile(
  build: GoBuild,
  output: string,
  report: { label: string; onProgress: Progress; meter?: Meter | undefined },
): Promise<void> {
  const { label, onProgress } = report
  const meter = report.meter ?? (await meterOf([build], onProgress))
  const packages = await packagesOf(build, onProgress)
  const started = performance.now()
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`
  let current = 0
  const show = (): void => {
    const left = secondsLeft(meter, current, performance.now())
    const rest = left === undefined ? '' : `, ${roughly(left)} left`
    onProgress(`${label} … ${seconds()}, ${current} of ${packages.length} packages${rest}`, true)
  }
  onProgress(`${label} …`)
  const ticker = setInterval(show, TICK_MILLISECONDS)
  const args = ['build', '-v', '-trimpath', ...tagsOf(build), '-ldflags', build.ldflags, '-o', output, build.package]
  try {
    await go(args, build, line => {
      if (!isPackage(line)) return
      current++
      meter.compiled++
    })
  } finally {
    clearInterval(ticker)
  }
  meter.ended += packages.length
  onProgress(`${label} … ${seconds()}, done`, true)
}

/** With -v Go prints the path of each package that it compiles; messages have spaces or a #. */
const isPackage = (line: string): boolean => /^[^\s#]+$/.test(line)

/**
 * Runs Go in the folder of a build's module. Go runs in a process group of its own, which gets
 * SIGINT when this process is told to end, so that Go removes its folder of results.
 */
async function go(
  args: readonly string[],
  { module }: GoBuild,
  onLine: (line: string) => void,
): Promise<{ output: string }> {
  requireGo()
  const child = spawn('go', args, {
    cwd: join(GO_FOLDER, module),
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=readonly' },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let stopped: string | undefined
  const stop = (signal: string): void => {
    stopped = signal
    interrupt(child)
  }
  for (const signal of SIGNALS) process.once(signal, stop)
  let [output, errors] = ['', '']
  child.stdout.setEncoding('utf8').on('data', text => {
    output += text
  })
  createInterface({ input: child.stderr }).on('line', line => {
    errors = `${errors}${line}\n`.slice(-4000)
    onLine(line)
  })
  try {
    const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
    if (stopped !== undefined) throw new Error(`go ${args[0]} was ended by ${stopped}`)
    if (code !== 0) throw new Error(`go ${args[0]} of ${module} ended with ${code}:\n${errors}`)
    return { output }
  } finally {
    for (const signal of SIGNALS) process.removeListener(signal, stop)
  }
}

function interrupt({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGINT')
  } catch {
    // The group has ended already.
  }
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

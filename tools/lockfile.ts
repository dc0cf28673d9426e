// npm run lock: writes package-lock.json without addresses, so that it is valid with any registry.
// npm leaves out optional packages of other platforms that its registry does not serve, and `npm
// ci` then refuses the file as incomplete. This adds them with the exact version that their
// dependents ask for and the platform in their names. They are never installed on Linux with glibc.

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'

interface Entry {
  version?: string
  resolved?: string
  optional?: boolean
  dev?: boolean
  os?: string[]
  cpu?: string[]
  libc?: string[]
  optionalDependencies?: Record<string, string>
}

const SYSTEMS = ['android', 'darwin', 'freebsd', 'openharmony', 'win32', 'linux']
const PROCESSORS = ['arm64', 'x64', 'ia32', 'ppc64', 'riscv64', 's390x']

/** The entry of a package for another platform; undefined without a platform or exact version. */
function foreign(name: string, version: string): Entry | undefined {
  const system = SYSTEMS.find(word => name.includes(word))
  if (system === undefined || !/^\d+\.\d+\.\d+$/.test(version)) return undefined
  const cpu = [PROCESSORS.find(word => name.includes(word)) ?? 'arm']
  const libc = system === 'linux' ? { libc: [name.includes('musl') ? 'musl' : 'glibc'] } : {}
  return { version, cpu, dev: true, ...libc, optional: true, os: [system] }
}

execFileSync('npm', ['install', '--package-lock-only', '--ignore-scripts'], { stdio: 'inherit' })
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Entry> }
for (const entry of Object.values(lock.packages)) {
  delete entry.resolved
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const added = foreign(name, version)
    if (added !== undefined) lock.packages[`node_modules/${name}`] ??= added
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).toSorted(([a], [b]) => (a < b ? -1 : 1)))
writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`)

// The Debian packages that a node needs, and the command that installs the missing ones.

import { accessSync, constants, existsSync } from 'node:fs'
import { join } from 'node:path'

/** The needed programs of each Debian package. */
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  containerd: ['containerd', 'ctr', 'containerd-shim-runc-v2'],
  runc: ['runc'],
  iptables: ['iptables', 'iptables-restore'],
  iproute2: ['ip', 'tc'],
  openssl: ['openssl'],
  'util-linux': ['unshare', 'nsenter', 'setpriv'],
  mount: ['mount', 'umount'],
  gcc: ['gcc'],
}

const API_PACKAGES = ['openssl', 'util-linux']
const CNI_FOLDERS = ['/usr/lib/cni', '/opt/cni/bin']

/** All packages that the embedded cluster may need. Debian 12 has each of them. */
export const DEBIAN_PACKAGES: readonly string[] = [...Object.keys(PROGRAMS), 'containernetworking-plugins'].toSorted()

/** PATH with the folders of system programs, which the PATH of a plain user may lack. */
export function searchPath(path = process.env['PATH'] ?? ''): string {
  const folders = path.split(':').filter(folder => folder !== '')
  return [...new Set([...folders, '/usr/local/sbin', '/usr/sbin', '/sbin'])].join(':')
}

export function findProgram(name: string, path = searchPath()): string | undefined {
  return path
    .split(':')
    .map(folder => join(folder, name))
    .find(isExecutable)
}

/** The folder of the CNI plugins; undefined if there is none. */
export function cniPlugins(): string | undefined {
  return CNI_FOLDERS.find(folder => existsSync(join(folder, 'ptp')) && existsSync(join(folder, 'bandwidth')))
}

export function missingPackages(mode: 'api' | 'node'): string[] {
  const needed = mode === 'api' ? API_PACKAGES : Object.keys(PROGRAMS)
  const missing = needed.filter(name => PROGRAMS[name]?.some(program => findProgram(program) === undefined))
  if (mode === 'node' && cniPlugins() === undefined) missing.push('containernetworking-plugins')
  return missing.toSorted()
}

/** The text of the error about missing packages; undefined if none is missing. Pure. */
export function packagesError(missing: readonly string[]): string | undefined {
  if (missing.length === 0) return undefined
  return `the embedded cluster needs ${missing.join(', ')}; run: apt-get install -y --no-install-recommends ${missing.join(' ')}`
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

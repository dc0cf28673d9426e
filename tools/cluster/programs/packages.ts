// What a node needs from the machine, and the one command that brings what is missing.

import { accessSync, constants, existsSync } from 'node:fs'
import { join } from 'node:path'

/** Programs by the Debian package that holds them. */
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

/** All packages that the embedded cluster may need; each is part of Debian 12. */
export const DEBIAN_PACKAGES: readonly string[] = [...Object.keys(PROGRAMS), 'containernetworking-plugins'].toSorted()

/** PATH with the administrator's folders, which a plain user's may lack. */
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

/** Where the CNI plugins are; undefined if there are none. */
export function cniPlugins(): string | undefined {
  return CNI_FOLDERS.find(folder => existsSync(join(folder, 'ptp')) && existsSync(join(folder, 'bandwidth')))
}

export function missingPackages(mode: 'api' | 'node'): string[] {
  const needed = mode === 'api' ? API_PACKAGES : Object.keys(PROGRAMS)
  const missing = needed.filter(name => PROGRAMS[name]?.some(program => findProgram(program) === undefined))
  if (mode === 'node' && cniPlugins() === undefined) missing.push('containernetworking-plugins')
  return missing.toSorted()
}

/** The text of the one error about the machine; undefined if nothing is missing. Pure. */
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

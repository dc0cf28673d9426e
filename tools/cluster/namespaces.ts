// The namespaces of a node. Mounts, processes and network are its own, so the end of its first
// process ends and unmounts everything, and no route leads out. The functions `enter…` run inside,
// as root, before any program is started.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../process.ts'

/** The path of the state folder inside, which keeps socket paths short whatever it is outside. */
export const INSIDE_ROOT = '/run/scmoe'

export const NODE_ADDRESS = '10.88.0.1'
export const SERVICE_RANGE = '10.96.0.0/16'
const NODE_LINK = 'scmoe0'

/**
 * Folders whose paths are fixed in the kubelet or in the library of CNI, and the part of the state
 * folder that is mounted there.
 */
const FIXED_FOLDERS: Readonly<Record<string, string>> = {
  '/var/lib/kubelet': 'kubelet',
  '/var/lib/cni': 'cni-cache',
  '/var/log': 'var-log',
}

/**
 * Runs a command as the second process of new namespaces. The first is a shell: it collects
 * orphans, such as the shims of containerd, and ends with the command, which ends all the others.
 */
export function inNewNamespaces(command: readonly string[]): string[] {
  const first = ['sh', '-c', '"$@" & wait $!', 'scmoe-cluster', ...command]
  return ['unshare', '--net', '--mount', '--pid', '--ipc', '--uts', '--fork', '--kill-child', '--mount-proc', ...first]
}

/** Gives the node its own /run and its own part of /var, without writing to the machine. */
export async function enterMounts(stateDir: string): Promise<void> {
  const runFolder = join(stateDir, 'run')
  const at = (...path: string[]): string => join(runFolder, ...path)
  mkdirSync(runFolder, { recursive: true })
  await run('mount', ['-t', 'tmpfs', '-o', 'mode=0755', 'tmpfs', runFolder])
  for (const folder of ['scmoe', 'upper', 'work']) mkdirSync(at(folder))
  await run('mount', ['--bind', stateDir, at('scmoe')])
  const layers = `lowerdir=/var/lib,upperdir=${at('upper')},workdir=${at('work')}`
  await run('mount', ['-t', 'overlay', '-o', layers, 'overlay', '/var/lib'])
  await run('mount', ['--rbind', runFolder, '/run'])
  for (const [fixed, part] of Object.entries(FIXED_FOLDERS)) {
    const source = join(INSIDE_ROOT, part)
    for (const folder of [source, fixed]) mkdirSync(folder, { recursive: true })
    await run('mount', ['--bind', source, fixed])
  }
  // The kubelet needs mounts that reach its containers. They still do not reach the machine.
  await run('mount', ['--make-rshared', '/'])
}

export async function enterNetwork(): Promise<void> {
  await run('ip', ['link', 'set', 'lo', 'up'])
  await run('ip', ['link', 'add', NODE_LINK, 'type', 'bridge'])
  await run('ip', ['address', 'add', `${NODE_ADDRESS}/32`, 'dev', NODE_LINK])
  await run('ip', ['link', 'set', NODE_LINK, 'up'])
  // The address of a service is rewritten only if a route to it exists. Others fail at once.
  await run('ip', ['route', 'add', SERVICE_RANGE, 'dev', NODE_LINK])
  await run('ip', ['route', 'add', 'unreachable', 'default'])
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1')
}

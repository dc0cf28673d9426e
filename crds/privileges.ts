// The fields by which a job asks for more than pods of its own: for access to the node, or for
// another account's rights. They are those that the Pod Security level "baseline" forbids, and
// nodeName and service accounts. An operator with --restrict-templates refuses them.

import { type Json, record } from './json.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'

const list = (value: unknown): Json[] => (Array.isArray(value) ? value.map(record) : [])

/** Each field with its value, e.g. `spec.workers.template.spec.hostNetwork true`. */
export function privileges({ workers, checkpoint }: Pick<ScMoEJobSpec, 'workers' | 'checkpoint'>): string[] {
  const spec = record(record(workers.template)['spec'])
  const found: Found = []
  const at = 'spec.workers.template.spec'
  ofPod(found, at, spec)
  for (const [i, volume] of list(spec['volumes']).entries()) hostPath(found, `${at}.volumes[${i}]`, volume)
  hostPath(found, 'spec.checkpoint.volume', record(checkpoint?.volume))
  for (const kind of ['containers', 'initContainers', 'ephemeralContainers'])
    for (const [i, container] of list(spec[kind]).entries()) ofContainer(found, `${at}.${kind}[${i}]`, container)
  return found.map(([path, value]) => `${path} ${typeof value === 'string' ? `"${value}"` : JSON.stringify(value)}`)
}

type Found = [path: string, value: unknown][]

function ofPod(found: Found, at: string, spec: Json): void {
  const take = (field: string) => found.push([`${at}.${field}`, spec[field]])
  if (isSet(spec['nodeName'])) take('nodeName')
  for (const field of ['hostNetwork', 'hostPID', 'hostIPC']) if (spec[field] === true) take(field)
  for (const field of ['serviceAccountName', 'serviceAccount'])
    if (isSet(spec[field]) && spec[field] !== 'default') take(field)
  const security = record(spec['securityContext'])
  ofSecurity(found, `${at}.securityContext`, security)
  if (list(security['sysctls']).length > 0) found.push([`${at}.securityContext.sysctls`, security['sysctls']])
}

function hostPath(found: Found, at: string, volume: Json): void {
  if (isSet(volume['hostPath'])) found.push([`${at}.hostPath`, record(volume['hostPath'])['path'] ?? null])
}

function ofContainer(found: Found, at: string, container: Json): void {
  const security = record(container['securityContext'])
  ofSecurity(found, `${at}.securityContext`, security)
  if (security['privileged'] === true) found.push([`${at}.securityContext.privileged`, true])
  const added = record(security['capabilities'])['add']
  if (Array.isArray(added) && added.some(each => each !== 'NET_BIND_SERVICE'))
    found.push([`${at}.securityContext.capabilities.add`, added])
  if (isSet(security['procMount']) && security['procMount'] !== 'Default')
    found.push([`${at}.securityContext.procMount`, security['procMount']])
  for (const [i, port] of list(container['ports']).entries())
    if (isSet(port['hostPort']) && port['hostPort'] !== 0) found.push([`${at}.ports[${i}].hostPort`, port['hostPort']])
  const { postStart, preStop } = record(container['lifecycle'])
  const hooks = { 'lifecycle.postStart': postStart, 'lifecycle.preStop': preStop }
  const probes = ['livenessProbe', 'readinessProbe', 'startupProbe'].map(name => [name, container[name]] as const)
  for (const [name, hook] of [...probes, ...Object.entries(hooks)])
    for (const action of ['httpGet', 'tcpSocket']) {
      // The kubelet would send the request, from the node and to any address.
      const { host } = record(record(hook)[action])
      if (isSet(host)) found.push([`${at}.${name}.${action}.host`, host])
    }
}

/** Fields that the security contexts of pods and of containers have in common. */
function ofSecurity(found: Found, at: string, security: Json): void {
  for (const profile of ['seccompProfile', 'appArmorProfile'])
    if (record(security[profile])['type'] === 'Unconfined') found.push([`${at}.${profile}.type`, 'Unconfined'])
  if (record(security['windowsOptions'])['hostProcess'] === true) found.push([`${at}.windowsOptions.hostProcess`, true])
  for (const field of ['user', 'role', 'type']) {
    const value = record(security['seLinuxOptions'])[field]
    if (isSet(value) && !(field === 'type' && String(value).startsWith('container_')))
      found.push([`${at}.seLinuxOptions.${field}`, value])
  }
}

const isSet = (value: unknown): boolean => value !== undefined && value !== null && value !== ''

// A certificate authority for one cluster, and one certificate for each program, so that every
// program proves its identity and none shares a secret.

import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../process.ts'

/** `names` are the DNS names and addresses of a server; a client's certificate has none. */
export type Leaf = {
  readonly file: string
  readonly user: string
  readonly group?: string
  readonly names?: readonly string[]
}

const DAYS = '365'
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-sha256', '-days', DAYS]

export function leaves(cluster: { node: string; nodeAddress: string; serviceAddress: string }): Leaf[] {
  const service = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'kubernetes.default.svc.cluster.local']
  return [
    {
      file: 'apiserver',
      user: 'kube-apiserver',
      names: ['localhost', ...service, '127.0.0.1', cluster.serviceAddress, cluster.nodeAddress],
    },
    { file: 'apiserver-kubelet-client', user: 'kube-apiserver-kubelet-client', group: 'system:masters' },
    { file: 'kubelet-server', user: `system:node:${cluster.node}`, names: [cluster.node, cluster.nodeAddress] },
    { file: 'admin', user: 'admin', group: 'system:masters' },
    { file: 'controller-manager', user: 'system:kube-controller-manager' },
    { file: 'scheduler', user: 'system:kube-scheduler' },
    { file: 'kubelet', user: `system:node:${cluster.node}`, group: 'system:nodes' },
    { file: 'proxy', user: 'system:kube-proxy' },
    { file: 'coredns', user: 'system:coredns' },
  ]
}

/** The X.509 extensions of a leaf, as arguments of `openssl req`. Pure. */
export function extensions(leaf: Leaf): string[] {
  const names = leaf.names?.map(name => (/^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`))
  return [
    'basicConstraints=critical,CA:FALSE',
    'keyUsage=critical,digitalSignature',
    `extendedKeyUsage=${names === undefined ? 'clientAuth' : 'serverAuth'}`,
    ...(names === undefined ? [] : [`subjectAltName=${names.join(',')}`]),
  ].flatMap(extension => ['-addext', extension])
}

/**
 * Writes ca.crt, ca.key, sa.key, sa.pub and a .crt and .key per leaf into `folder`. Only the owner
 * can read the keys.
 */
export async function writePki(folder: string, list: readonly Leaf[]): Promise<void> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = (name: string): string => join(folder, name)
  // The configuration of the machine could add extensions that contradict these.
  writeFileSync(path('openssl.cnf'), '[req]\ndistinguished_name = subject\n[subject]\n')
  const request = (subject: string, file: string): string[] => {
    const output = ['-keyout', path(`${file}.key`), '-out', path(`${file}.crt`)]
    return ['req', '-x509', '-config', path('openssl.cnf'), ...NEW_KEY, '-subj', subject, ...output]
  }
  const authority = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign']
  await run('openssl', [...request('/CN=scmoe-cluster', 'ca'), ...authority.flatMap(value => ['-addext', value])])
  const issuer = ['-CA', path('ca.crt'), '-CAkey', path('ca.key')]
  await Promise.all([
    ...list.map(leaf => {
      const subject = `${leaf.group === undefined ? '' : `/O=${leaf.group}`}/CN=${leaf.user}`
      return run('openssl', [...request(subject, leaf.file), ...issuer, ...extensions(leaf)])
    }),
    run('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', path('sa.key')]).then(() =>
      run('openssl', ['ec', '-in', path('sa.key'), '-pubout', '-out', path('sa.pub')]),
    ),
  ])
  for (const key of ['ca', 'sa', ...list.map(leaf => leaf.file)]) chmodSync(path(`${key}.key`), 0o600)
}

/** A kubeconfig that contains its certificates, so that it can be copied. */
export function kubeconfig(folder: string, file: string, server: string): string {
  const read = (name: string): string => readFileSync(join(folder, name)).toString('base64')
  const user = { 'client-certificate-data': read(`${file}.crt`), 'client-key-data': read(`${file}.key`) }
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'scmoe', cluster: { server, 'certificate-authority-data': read('ca.crt') } }],
    users: [{ name: file, user }],
    contexts: [{ name: 'scmoe', context: { cluster: 'scmoe', user: file } }],
    'current-context': 'scmoe',
  }
  return `${JSON.stringify(config, null, 2)}\n`
}

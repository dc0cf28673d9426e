// The cluster's programs as data: their command lines and the files they read. Pure.

import { join } from 'node:path'
import { NODE_ADDRESS, SERVICE_RANGE } from './namespaces.ts'
import type { BinaryName } from './programs/modules.ts'

export type Mode = 'api' | 'node'

/** `root` is the state folder as the programs see it; `port` the API server's. */
export type Layout = {
  readonly mode: Mode
  readonly root: string
  readonly port: number
  readonly binaries: Readonly<Partial<Record<BinaryName, string>>>
  readonly cniPlugins: string
  readonly cgroup: string
}

export type Component = { readonly name: string; readonly command: readonly string[] }

export const NODE_NAME = 'embedded'
export const SERVICE_ADDRESS = '10.96.0.1'
export const PAUSE_IMAGE = 'scmoe/pause:1'
const POD_RANGE = '10.244.0.0/16'
const DOMAIN = 'cluster.local'

function program(layout: Layout, name: BinaryName): string {
  const path = layout.binaries[name]
  if (path === undefined) throw new Error(`${name} is needed in mode '${layout.mode}' and was not looked up`)
  return path
}

const flags = (values: Readonly<Record<string, string | number | boolean>>): string[] =>
  Object.entries(values).map(([name, value]) => `--${name}=${value}`)

/** Its sockets are files, so that it takes no port and only the owner of the folder reaches it. */
export function etcd(layout: Layout): Component {
  const socket = (name: string): string => `unix://${join(layout.root, name)}`
  // A member must advertise some address with a port; alone, it is never asked for.
  const peer = 'http://localhost:2380'
  const options = {
    name: 'scmoe',
    'data-dir': join(layout.root, 'etcd'),
    'listen-client-urls': socket('etcd.sock'),
    'advertise-client-urls': 'http://localhost:2379',
    'listen-peer-urls': socket('etcd-peer.sock'),
    'initial-advertise-peer-urls': peer,
    'initial-cluster': `scmoe=${peer}`,
    'unsafe-no-fsync': true,
    'log-level': 'warn',
  }
  return { name: 'etcd', command: [program(layout, 'etcd'), ...flags(options)] }
}

export function apiserver(layout: Layout): Component {
  const pki = (file: string): string => join(layout.root, 'pki', file)
  const options = {
    'etcd-servers': `unix://${join(layout.root, 'etcd.sock')}`,
    'secure-port': layout.port,
    'tls-cert-file': pki('apiserver.crt'),
    'tls-private-key-file': pki('apiserver.key'),
    'client-ca-file': pki('ca.crt'),
    'authorization-mode': 'Node,RBAC',
    'service-account-issuer': `https://kubernetes.default.svc.${DOMAIN}`,
    'service-account-key-file': pki('sa.pub'),
    'service-account-signing-key-file': pki('sa.key'),
    'service-cluster-ip-range': SERVICE_RANGE,
    'allow-privileged': true,
    profiling: false,
    // The Workload API, which the scheduling provider `kubernetes` needs: alpha in 1.35.
    'runtime-config': 'scheduling.k8s.io/v1alpha1=true',
    'feature-gates': 'GenericWorkload=true',
  }
  // Nobody makes service accounts at API level, so nothing may wait for them; and loopback is no endpoint to publish.
  const api = {
    'bind-address': '127.0.0.1',
    'advertise-address': '127.0.0.1',
    'endpoint-reconciler-type': 'none',
    'disable-admission-plugins': 'ServiceAccount',
  }
  // The kubelet's name is in no DNS, and only its address is in the certificate's way.
  const node = {
    'bind-address': '0.0.0.0',
    'advertise-address': NODE_ADDRESS,
    'enable-admission-plugins': 'NodeRestriction',
    'kubelet-preferred-address-types': 'InternalIP',
    'kubelet-certificate-authority': pki('ca.crt'),
    'kubelet-client-certificate': pki('apiserver-kubelet-client.crt'),
    'kubelet-client-key': pki('apiserver-kubelet-client.key'),
  }
  const all = { ...options, ...(layout.mode === 'api' ? api : node) }
  return { name: 'kube-apiserver', command: [program(layout, 'kube-apiserver'), ...flags(all)] }
}

/** What runs beside etcd and the API server on a node; `containerd` needs no API server and may start first. */
export function nodeComponents(layout: Layout): Component[] {
  const at = (...path: string[]): string => join(layout.root, ...path)
  const kubeconfig = (file: string): string => at('pki', `${file}.kubeconfig`)
  const kube = (name: BinaryName, options: Record<string, string | number | boolean>): Component => ({
    name,
    command: [program(layout, name), ...flags(options)],
  })
  return [
    { name: 'containerd', command: ['containerd', '--config', at('config', 'containerd.toml')] },
    kube('kube-controller-manager', {
      kubeconfig: kubeconfig('controller-manager'),
      'service-account-private-key-file': at('pki', 'sa.key'),
      'root-ca-file': at('pki', 'ca.crt'),
      'use-service-account-credentials': true,
      'leader-elect': false,
      'allocate-node-cidrs': false,
      // At the default of 20 requests/s the controllers' own accounts alone take four seconds.
      'kube-api-qps': 400,
      'kube-api-burst': 400,
      'bind-address': '127.0.0.1',
    }),
    kube('kube-scheduler', {
      kubeconfig: kubeconfig('scheduler'),
      'feature-gates': 'GenericWorkload=true,GangScheduling=true',
      'leader-elect': false,
      'bind-address': '127.0.0.1',
    }),
    kube('kube-proxy', {
      kubeconfig: kubeconfig('proxy'),
      'proxy-mode': 'iptables',
      'cluster-cidr': POD_RANGE,
      'hostname-override': NODE_NAME,
      // The table's size belongs to the machine, not to a network namespace.
      'conntrack-max-per-core': 0,
      'conntrack-tcp-timeout-established': 0,
      'conntrack-tcp-timeout-close-wait': 0,
    }),
    kube('kubelet', {
      kubeconfig: kubeconfig('kubelet'),
      config: at('config', 'kubelet.json'),
      'hostname-override': NODE_NAME,
      'node-ip': NODE_ADDRESS,
      'cert-dir': at('pki'),
    }),
    { name: 'coredns', command: [program(layout, 'coredns'), '-conf', at('config', 'Corefile')] },
  ]
}

/** The files of a node by their path below the state folder. */
export function nodeFiles(layout: Layout): Record<string, string> {
  return {
    'config/containerd.toml': containerdConfig(layout),
    'config/cni/10-scmoe.conflist': json(cniConfig(layout.root)),
    'config/kubelet.json': json(kubeletConfig(layout)),
    'config/Corefile': corefile(layout.root),
  }
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

function containerdConfig(layout: Layout): string {
  const at = (path: string): string => JSON.stringify(join(layout.root, path))
  // Raising one's OOM score needs CAP_SYS_RESOURCE, which a container's root may lack: runc then ends without a reason.
  return `version = 2
root = ${at('containerd')}
state = "/run/containerd"
oom_score = 0

[grpc]
  address = ${at('containerd.sock')}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/${PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = ${at('cni-bin')}
    conf_dir = ${at('config/cni')}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`
}

/** Every pod has a link of its own to the node, so that traffic between two pods passes the services' rules as well. */
function cniConfig(root: string): unknown {
  const addresses = {
    type: 'host-local',
    dataDir: join(root, 'cni'),
    ranges: [[{ subnet: POD_RANGE }]],
    routes: [{ dst: '0.0.0.0/0' }],
  }
  return {
    cniVersion: '0.4.0',
    name: 'scmoe',
    plugins: [
      { type: 'ptp', ipMasq: false, mtu: 1500, ipam: addresses },
      { type: 'portmap', capabilities: { portMappings: true } },
      { type: 'shaping', capabilities: { bandwidth: true } },
    ],
  }
}

function kubeletConfig(layout: Layout): unknown {
  const at = (...path: string[]): string => join(layout.root, ...path)
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: at('pki/ca.crt') },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: at('pki/kubelet-server.crt'),
    tlsPrivateKeyFile: at('pki/kubelet-server.key'),
    containerRuntimeEndpoint: `unix://${at('containerd.sock')}`,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: `/${layout.cgroup}`,
    enforceNodeAllocatable: [],
    failCgroupV1: false,
    failSwapOn: false,
    clusterDNS: [NODE_ADDRESS],
    clusterDomain: DOMAIN,
    // Pods see this cluster's names only, never the machine's resolver or its search domains.
    resolvConf: '',
    volumePluginDir: at('kubelet', 'volume-plugins'),
    // The disk is the machine's: how full it is must not evict pods or delete images that were imported.
    evictionHard: { 'imagefs.available': '0%', 'nodefs.available': '0%', 'nodefs.inodesFree': '0%' },
    imageGCHighThresholdPercent: 100,
    serializeImagePulls: false,
    nodeStatusReportFrequency: '1m0s',
    nodeStatusUpdateFrequency: '10s',
    syncFrequency: '10s',
  }
}

/** An answer "no such name" is cached too: a short time, because a worker may ask before rank 0 exists. */
function corefile(root: string): string {
  return `.:53 {
  bind ${NODE_ADDRESS}
  errors
  ready ${NODE_ADDRESS}:8181
  cache 1
  kubernetes ${DOMAIN} in-addr.arpa {
    kubeconfig ${join(root, 'pki', 'coredns.kubeconfig')} scmoe
    pods disabled
    ttl 1
  }
}
`
}

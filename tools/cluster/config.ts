// The command lines of the cluster's programs and the files that they read, as data. Pure.

import { join } from 'node:path'
import { NODE_ADDRESS, SERVICE_RANGE } from './namespaces.ts'
import type { BinaryName } from './programs/modules.ts'

export type Mode = 'api' | 'node'

/** `root` is the state folder as the programs see it; `port` is that of the API server. */
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

/** etcd listens on files only: it takes no port, and only the owner of the folder reaches it. */
export function etcd(layout: Layout): Component {
  const socket = (name: string): string => `unix://${join(layout.root, name)}`
  // A member must advertise an address with a port; a single member never uses it.
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
    // The Workload API is alpha in 1.35; the scheduling provider `kubernetes` needs it.
    'runtime-config': 'scheduling.k8s.io/v1alpha1=true',
    'feature-gates': 'GenericWorkload=true',
  }
  // Without controllers there are no service accounts, so no pod may wait for one. Loopback is not
  // an endpoint to publish.
  const api = {
    'bind-address': '127.0.0.1',
    'advertise-address': '127.0.0.1',
    'endpoint-reconciler-type': 'none',
    'disable-admission-plugins': 'ServiceAccount',
  }
  // The kubelet's name is not in DNS, so it is reached by its address, which its certificate has.
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

/** The programs of a node besides etcd and the API server. `containerd` needs no API server. */
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
      // With the default of 20 requests/s the accounts of the controllers would take four seconds.
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
      // The size of this table belongs to the machine, not to a network namespace.
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

/** The contents of a node's files by path below the state folder. */
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
  // To raise an OOM score needs CAP_SYS_RESOURCE, which root in a container may lack; runc would
  // then end without giving a reason.
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

/** Every pod has its own link to the node, so traffic between pods passes the rules of services. */
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
    // Pods see only the names of this cluster, not the resolver or search domains of the machine.
    resolvConf: '',
    volumePluginDir: at('kubelet', 'volume-plugins'),
    // A full disk of the machine must not evict pods or delete imported images.
    evictionHard: { 'imagefs.available': '0%', 'nodefs.available': '0%', 'nodefs.inodesFree': '0%' },
    imageGCHighThresholdPercent: 100,
    serializeImagePulls: false,
    nodeStatusReportFrequency: '1m0s',
    nodeStatusUpdateFrequency: '10s',
    syncFrequency: '10s',
  }
}

/** "No such name" is cached only shortly, because a worker may ask before rank 0 exists. */
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

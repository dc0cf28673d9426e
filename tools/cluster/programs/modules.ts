// What is built from pinned Go modules, and the name of the folder that holds the result. Reads the pins and asks Go where modules are.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export type BinaryName =
  | 'etcd'
  | 'kube-apiserver'
  | 'kubectl'
  | 'kube-controller-manager'
  | 'kube-scheduler'
  | 'kubelet'
  | 'kube-proxy'
  | 'coredns'

/** One `go build`: a package of one of the modules under go/, and the linker's flags. */
export type GoBuild = {
  readonly module: string
  readonly package: string
  readonly ldflags: string
  readonly tags?: string
}

/** Programs that no cluster needs: the last Helm 3, Prometheus' checker of rules, the controller the operator is compared with. */
export type ProgramName = 'helm' | 'promtool' | 'jobset'

export const GO_FOLDER = join(import.meta.dirname, '../go')

/** All that a program needs to talk to an API server. */
export const API_BINARIES: readonly BinaryName[] = ['etcd', 'kube-apiserver']

/** All that a node needs, in the order of building. */
export const NODE_BINARIES: readonly BinaryName[] = [
  'etcd',
  'kube-apiserver',
  'kubectl',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
  'coredns',
]

const STRIPPED = '-s -w'
const CONTROL_PLANE_MODULES = ['etcd', 'kubernetes', 'coredns']

/** The version that a go.mod requires of a module. */
export function requiredVersion(goMod: string, module: string): string {
  for (const line of goMod.split('\n')) {
    const [path, version] = line
      .trim()
      .replace(/^require\s+/, '')
      .split(/\s+/)
    if (path === module && version?.startsWith('v')) return version
  }
  throw new Error(`go.mod does not require ${module}`)
}

export function kubernetesVersion(): string {
  return requiredVersion(readFileSync(join(GO_FOLDER, 'kubernetes', 'go.mod'), 'utf8'), 'k8s.io/kubernetes')
}

/** How to build one binary. Without the version in the linker's flags the node reports v0.0.0. */
export function goBuild(name: BinaryName, version = kubernetesVersion()): GoBuild {
  if (name === 'etcd' || name === 'coredns') return { module: name, package: '.', ldflags: STRIPPED }
  const [major, minor] = version.slice(1).split('.')
  const variables = { gitVersion: version, gitMajor: major, gitMinor: minor }
  const settings = Object.entries(variables).map(([key, value]) => `-X k8s.io/component-base/version.${key}=${value}`)
  return {
    module: 'kubernetes',
    package: `k8s.io/kubernetes/cmd/${name}`,
    ldflags: [STRIPPED, ...settings].join(' '),
  }
}

/** How to build a program that no cluster needs. */
export function programBuild(name: ProgramName): GoBuild {
  if (name === 'jobset') return { module: 'jobset', package: 'sigs.k8s.io/jobset', ldflags: STRIPPED }
  if (name === 'promtool') {
    // It checks files: without the clients of all clouds it is a third of the size.
    return {
      module: 'promtool',
      package: 'github.com/prometheus/prometheus/cmd/promtool',
      ldflags: STRIPPED,
      tags: 'remove_all_sd',
    }
  }
  const version = requiredVersion(readFileSync(join(GO_FOLDER, 'helm3', 'go.mod'), 'utf8'), 'helm.sh/helm/v3')
  const ldflags = `${STRIPPED} -X helm.sh/helm/v3/internal/version.version=${version}`
  return { module: 'helm3', package: 'helm.sh/helm/v3/cmd/helm', ldflags }
}

/** Where Go keeps the source of a module that one under go/ requires. */
export function moduleFolder(name: string, module: string): string {
  const text = execFileSync('go', ['mod', 'download', '-json', module], {
    cwd: join(GO_FOLDER, name),
    encoding: 'utf8',
  })
  const { Dir: folder }: { Dir: string } = JSON.parse(text)
  return folder
}

/** Names the result of these builds: another pin, source or flag is another name. */
export function buildKey(modules: readonly string[], flags: readonly string[]): string {
  const hash = createHash('sha256')
  for (const module of modules) {
    for (const file of readdirSync(join(GO_FOLDER, module)).toSorted()) {
      hash
        .update(`${module}/${file}\0`)
        .update(readFileSync(join(GO_FOLDER, module, file)))
        .update('\0')
    }
  }
  return hash.update(flags.join('\0')).digest('hex').slice(0, 16)
}

export function controlPlaneKey(): string {
  return buildKey(
    CONTROL_PLANE_MODULES,
    NODE_BINARIES.map(name => goBuild(name).ldflags),
  )
}

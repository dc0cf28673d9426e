// The programs that are built from pinned Go modules, and the names of their folders in the cache.

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

/**
 * A file of the cache. All programs of Kubernetes are links to one file, which is compiled and
 * linked once and acts as the program whose name it is started under.
 */
export type FileName = 'etcd' | 'kubernetes' | 'coredns' | 'kubectl'

/** One `go build`: a package of a module under go/, and the flags of the linker. */
export type GoBuild = {
  readonly module: string
  readonly package: string
  readonly ldflags: string
  readonly tags?: string
}

/**
 * Programs that no cluster needs: the last Helm 3, the rule checker of Prometheus, and the
 * controller with which the operator is compared.
 */
export type ProgramName = 'helm' | 'promtool' | 'jobset'

export const GO_FOLDER = join(import.meta.dirname, '../go')

/** The programs of mode `api`. */
export const API_BINARIES: readonly BinaryName[] = ['etcd', 'kube-apiserver']

/** The programs of mode `node`. */
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
const CONTROL_PLANE_MODULES = ['etcd', 'kubernetes', 'coredns'] as const

/** The version of a module that a go.mod requires. */
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

export function fileOf(name: BinaryName): FileName {
  return name === 'etcd' || name === 'coredns' || name === 'kubectl' ? name : 'kubernetes'
}

/** The build of one file. Without the version in these flags, the node would report v0.0.0. */
export function goBuild(name: (typeof CONTROL_PLANE_MODULES)[number], version = kubernetesVersion()): GoBuild {
  if (name !== 'kubernetes') return { module: name, package: '.', ldflags: STRIPPED }
  const [major, minor] = version.slice(1).split('.')
  const variables = { gitVersion: version, gitMajor: major, gitMinor: minor }
  const settings = Object.entries(variables).map(([key, value]) => `-X k8s.io/component-base/version.${key}=${value}`)
  return { module: name, package: '.', ldflags: [STRIPPED, ...settings].join(' ') }
}

/** The build of a program that no cluster needs. */
export function programBuild(name: ProgramName): GoBuild {
  if (name === 'jobset') return { module: 'jobset', package: 'sigs.k8s.io/jobset', ldflags: STRIPPED }
  if (name === 'promtool') {
    // To check files it needs no clients of clouds, without which it has a third of the size.
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

/** The folder in which Go keeps the source of `module`, which the module `name` requires. */
export function moduleFolder(name: string, module: string): string {
  const text = execFileSync('go', ['mod', 'download', '-json', module], {
    cwd: join(GO_FOLDER, name),
    encoding: 'utf8',
  })
  const { Dir: folder }: { Dir: string } = JSON.parse(text)
  return folder
}

/** A name for the result of these builds, which changes with every pin, source and flag. */
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
    CONTROL_PLANE_MODULES.map(name => goBuild(name).ldflags),
  )
}

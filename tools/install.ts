// Puts the images and the chart of this checkout into a cluster. Elsewhere a release pipeline and
// `helm install` do that.

import { join } from 'node:path'
import type { Cluster } from './cluster/cluster.ts'
import { helm } from './cluster/helm.ts'
import { binaries, type Progress } from './cluster/programs/binaries.ts'
import { builtImage, LOCAL_REGISTRY } from './images/images.ts'
import { run } from './process.ts'

export const ROOT = join(import.meta.dirname, '..')
export const SYSTEM_NAMESPACE = 'scmoe-system'
const RELEASE = 'scmoe'

/**
 * Runs kubectl against a cluster; resolves with its standard output, rejects with its error text.
 */
export type Kubectl = (...args: string[]) => Promise<string>

export async function kubectlFor(cluster: Cluster, onProgress?: Progress): Promise<Kubectl> {
  const { kubectl } = await binaries(['kubectl'], onProgress)
  return (...args) => run(kubectl, args, { ...process.env, KUBECONFIG: cluster.kubeconfig })
}

/** Builds the images of operator and worker and imports them into the node. */
export async function importImages(cluster: Cluster): Promise<void> {
  if (cluster.provider === 'existing') return
  for (const image of ['operator', 'worker'] as const) await cluster.imageImport((await builtImage(image)).tar)
}

/**
 * Runs `helm upgrade --install` of charts/scmoe, in a namespace of the restricted Pod Security
 * level, and waits until the operator is ready.
 */
export async function installChart(cluster: Cluster, values: readonly string[] = []): Promise<void> {
  const kubectl = await kubectlFor(cluster)
  await makeNamespace(kubectl, SYSTEM_NAMESPACE)
  const chart = join(ROOT, 'charts', 'scmoe')
  const set = [`image.registry=${LOCAL_REGISTRY}`, ...values].flatMap(value => ['--set', value])
  const wait = ['--wait', '--timeout', '120s']
  await run(
    await helm('4'),
    ['upgrade', '--install', RELEASE, chart, '--namespace', SYSTEM_NAMESPACE, ...wait, ...set],
    { ...process.env, KUBECONFIG: cluster.kubeconfig },
  )
}

/** Creates a namespace of the restricted Pod Security level unless it exists. */
export async function makeNamespace(kubectl: Kubectl, name: string): Promise<void> {
  await kubectl('create', 'namespace', name).catch((error: unknown) => {
    if (!String(error).includes('AlreadyExists')) throw error
  })
  await kubectl('label', '--overwrite', 'namespace', name, 'pod-security.kubernetes.io/enforce=restricted')
}

// Puts this checkout's images and chart into a cluster: what a release pipeline and `helm install` do elsewhere.

import { join } from 'node:path'
import type { Cluster } from './cluster/cluster.ts'
import { helm } from './cluster/helm.ts'
import { binaries, type Progress } from './cluster/programs/binaries.ts'
import { operatorImage, workerImage } from './images/images.ts'
import { run } from './process.ts'

export const ROOT = join(import.meta.dirname, '..')
export const SYSTEM_NAMESPACE = 'scmoe-system'
const RELEASE = 'scmoe'

/** Runs kubectl against a cluster; resolves with its standard output, rejects with its own words. */
export type Kubectl = (...args: string[]) => Promise<string>

export async function kubectlFor(cluster: Cluster, onProgress?: Progress): Promise<Kubectl> {
  const { kubectl } = await binaries(['kubectl'], onProgress)
  return (...args) => run(kubectl, args, { ...process.env, KUBECONFIG: cluster.kubeconfig })
}

/** Builds both images and gives them to the node. */
export async function importImages(cluster: Cluster): Promise<void> {
  if (cluster.provider === 'existing') return
  for (const image of [operatorImage, workerImage]) await cluster.imageImport((await image()).tar)
}

/** `helm upgrade --install` of charts/scmoe into a namespace under the restricted Pod Security level; waits until the operator is ready. */
export async function installChart(cluster: Cluster, values: readonly string[] = []): Promise<void> {
  const kubectl = await kubectlFor(cluster)
  await makeNamespace(kubectl, SYSTEM_NAMESPACE)
  const chart = join(ROOT, 'charts', 'scmoe')
  const set = values.flatMap(value => ['--set', value])
  const wait = ['--wait', '--timeout', '120s']
  await run(
    await helm('4'),
    ['upgrade', '--install', RELEASE, chart, '--namespace', SYSTEM_NAMESPACE, ...wait, ...set],
    { ...process.env, KUBECONFIG: cluster.kubeconfig },
  )
}

/** A namespace that admits only pods of the restricted Pod Security level; no error if it is there. */
export async function makeNamespace(kubectl: Kubectl, name: string): Promise<void> {
  await kubectl('create', 'namespace', name).catch((error: unknown) => {
    if (!String(error).includes('AlreadyExists')) throw error
  })
  await kubectl('label', '--overwrite', 'namespace', name, 'pod-security.kubernetes.io/enforce=restricted')
}

// Finds jobs and their pods in a cluster by name.

import { API_VERSION, KIND, LABEL, PLURAL } from '../../crds/contract.ts'
import { ranksPerWorker } from '../../crds/ranks.ts'
import type { Job, Pod } from '../../operator/objects/wire.ts'
import { readSpec } from '../../operator/plan/view.ts'
import { nearWords } from '../nearest.ts'
import { type Cluster, ClusterError } from './client.ts'

interface List<T> {
  items: T[]
}

const NOT_INSTALLED = `this cluster does not know ${KIND}s: install the chart with \`helm install scmoe charts/scmoe --namespace scmoe-system --create-namespace\``

const collection = (namespace?: string) =>
  `/apis/${API_VERSION}/${namespace === undefined ? '' : `namespaces/${encodeURIComponent(namespace)}/`}${PLURAL}`

export const podPath = (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/pods/${name}`

/** The jobs of a namespace, or of all namespaces. */
export async function listJobs(cluster: Cluster, namespace?: string): Promise<Job[]> {
  return (await cluster.get<List<Job>>(collection(namespace)).catch(installed)).items
}

/** Throws ClusterError with similar names if there is no such job. */
export async function findJob(cluster: Cluster, name: string): Promise<Job> {
  return cluster.get<Job>(pathOf(cluster, name)).catch(async (error: unknown) => missing(error, cluster, name))
}

export async function patchJob(cluster: Cluster, name: string, spec: object): Promise<Job> {
  return cluster
    .mergePatch<Job>(pathOf(cluster, name), { spec })
    .catch(async (error: unknown) => missing(error, cluster, name))
}

/** All pods that carry the job's name, sorted by rank. */
export async function podsOf(cluster: Cluster, { metadata }: Job): Promise<Pod[]> {
  const path = `/api/v1/namespaces/${metadata.namespace ?? cluster.namespace}/pods`
  const { items } = await cluster.get<List<Pod>>(path, { labelSelector: `${LABEL.jobName}=${metadata.name}` })
  return items.toSorted((a, b) => rankOf(a) - rankOf(b))
}

/** The first rank of the pod. */
export const rankOf = ({ metadata }: Pod): number => Number(metadata.labels?.[LABEL.rank] ?? -1)

/** The number of ranks in each pod; 1 if the job's spec cannot be read. */
export function ranksPerPod(job: Job): number {
  const reading = readSpec(job)
  return 'spec' in reading ? ranksPerWorker(reading.spec) : 1
}

const pathOf = (cluster: Cluster, name: string) => `${collection(cluster.namespace)}/${encodeURIComponent(name)}`

const isMissing = (error: unknown): error is ClusterError => error instanceof ClusterError && error.code === 404

function installed(error: unknown): never {
  throw isMissing(error) ? new ClusterError(NOT_INSTALLED, 404) : error
}

async function missing(error: unknown, cluster: Cluster, name: string): Promise<never> {
  if (!isMissing(error)) throw error
  const here = await listJobs(cluster, cluster.namespace)
  const elsewhere = (await visibleJobs(cluster)).filter(({ metadata }) => metadata.name === name)
  throw new ClusterError(notFound({ name, namespace: cluster.namespace }, names(here), elsewhere), 404)
}

/** The jobs of all namespaces; none if the user may not list them. */
async function visibleJobs(cluster: Cluster): Promise<Job[]> {
  try {
    return await listJobs(cluster)
  } catch {
    return []
  }
}

const names = (jobs: readonly Job[]) => jobs.map(({ metadata }) => metadata.name)

function notFound(
  { name, namespace }: { name: string; namespace: string },
  here: readonly string[],
  elsewhere: readonly Job[],
): string {
  const text = `there is no ${KIND} "${name}" in namespace ${namespace}`
  if (elsewhere.length > 0)
    return `${text}, but in ${elsewhere.map(({ metadata }) => metadata.namespace).join(', ')}: give --namespace`
  const near = [...new Set([...nearWords(name, here), ...here.filter(other => other.includes(name))])]
  if (near.length > 0) return `${text}; did you mean ${near.slice(0, 3).join(', ')}?`
  if (here.length === 0) return `${text}, and no other job: give --namespace to look elsewhere`
  return `${text}; there ${here.length === 1 ? 'is' : 'are'}: ${here.slice(0, 10).join(', ')}${here.length > 10 ? ', …' : ''}`
}

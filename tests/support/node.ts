// One cluster for the tests of a file: real kubelet, containerd and pod network, the chart unless
// `chart` is false, the images unless `images` is false, and a namespace of the restricted Pod
// Security level.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { API_VERSION, ENV, KIND } from '../../crds/contract.ts'
import type { ScMoEJobStatus } from '../../crds/status.ts'
import { type Cluster, up } from '../../tools/cluster/cluster.ts'
import {
  importImages,
  installChart,
  type Kubectl,
  kubectlFor,
  makeNamespace,
  SYSTEM_NAMESPACE,
} from '../../tools/install.ts'

export const NAMESPACE = 'train'

export interface World {
  cluster: Cluster
  kubectl: Kubectl
  down(): Promise<void>
}

export async function startWorld({ chart = true, images = true } = {}): Promise<World> {
  const stateDir = join(tmpdir(), `scmoe-test-${process.pid}`)
  const cluster = await up({ mode: 'node', provider: 'embedded', stateDir, onProgress: line => console.log(line) })
  try {
    const kubectl = await kubectlFor(cluster)
    if (images) await importImages(cluster)
    if (chart) await installChart(cluster)
    else await makeNamespace(kubectl, SYSTEM_NAMESPACE)
    await makeNamespace(kubectl, NAMESPACE)
    return { cluster, kubectl, down: () => cluster.down() }
  } catch (error) {
    await cluster.down()
    throw error
  }
}

export interface JobOptions {
  name: string
  spec: Record<string, unknown>
  /** Adds a volume claim of the default storage class under the job's name. */
  checkpointEverySteps?: number
}

/** The manifest of a small job on two workers; fields of `spec` replace the defaults. */
export function manifest({ name, spec, checkpointEverySteps }: JobOptions): string {
  const claim = {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
  }
  const volume = { persistentVolumeClaim: { claimName: name } }
  const checkpoint = { checkpoint: { everySteps: checkpointEverySteps, volume } }
  const job = {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name },
    spec: {
      model: { blocks: 2, hiddenSize: 64, heads: 2, feedForwardSize: 128, experts: 4 },
      workers: { replicas: 2 },
      reporting: { intervalSeconds: 5 },
      failurePolicy: { backoff: { initialSeconds: 1 } },
      ...(checkpointEverySteps === undefined ? {} : checkpoint),
      ...spec,
    },
  }
  return [...(checkpointEverySteps === undefined ? [] : [claim]), job].map(doc => stringify(doc)).join('---\n')
}

export async function status(kubectl: Kubectl, name: string): Promise<ScMoEJobStatus> {
  const json = await kubectl('get', 'scmoejob', name, '-n', NAMESPACE, '-o', 'json')
  return (JSON.parse(json) as { status?: ScMoEJobStatus }).status ?? {}
}

/** Polls the job's status until `done`; the error of a time-out shows the last status. */
export async function until(
  kubectl: Kubectl,
  name: string,
  done: (status: ScMoEJobStatus) => boolean,
): Promise<ScMoEJobStatus> {
  const deadline = Date.now() + 240_000
  for (;;) {
    const seen = await status(kubectl, name)
    if (done(seen)) return seen
    if (seen.state === 'Failed' || Date.now() > deadline) {
      throw new Error(`${name} did not get there; its status is ${JSON.stringify(seen, null, 2)}`)
    }
    await new Promise(resolve => setTimeout(resolve, 500))
  }
}

/** The process of the worker of one rank, found by its environment. Throws if there is none. */
export function workerPid(job: string, rank: number): number {
  return processWhere(`worker ${rank} of ${job}`, pid => {
    const environment = contents(pid, 'environ').split('\0')
    return environment.includes(`${ENV.jobName}=${job}`) && environment.includes(`${ENV.rank}=${rank}`)
  })
}

/**
 * The process of a program that runs inside the cluster, e.g. the API server or the operator, found
 * by the end of a word of its command line.
 */
export function processInside({ enter }: Cluster, word: string): number {
  const inside = readlinkSync(`/proc/${enter[2]}/ns/pid`)
  return processWhere(word, pid => {
    const command = contents(pid, 'cmdline').split('\0')
    return command.some(part => part.endsWith(word)) && (linkOf(pid) === inside || command[0] === 'node')
  })
}

function processWhere(what: string, holds: (pid: string) => boolean): number {
  const found = readdirSync('/proc').find(entry => /^\d+$/.test(entry) && holds(entry))
  if (found === undefined) throw new Error(`there is no process of ${what}`)
  return Number(found)
}

function contents(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

function linkOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`)
  } catch {
    return ''
  }
}

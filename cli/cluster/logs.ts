// scmoe logs: prints the logs of a job's workers, beginning with the worker that failed first.

import { CONTAINER, LABEL } from '../../crds/contract.ts'
import type { FailureStatus } from '../../crds/status.ts'
import { outcomeOf, workerEnd } from '../../operator/objects/pod-state.ts'
import type { ContainerStatus, Pod } from '../../operator/objects/wire.ts'
import { readStatus } from '../../operator/plan/view.ts'
import { type Cluster, ClusterError, type Query } from './client.ts'
import { findJob, podPath, podsOf, rankOf, ranksPerPod } from './jobs.ts'
import { readable } from './log-line.ts'

export interface LogsOptions {
  rank?: number | undefined
  tail: number
  all?: boolean | undefined
  follow?: boolean | undefined
  raw?: boolean | undefined
}
type Print = (text: string) => void

const SHOWN = 8

/** Returns the exit code: 1 if there are no pods. */
export async function logsCommand(
  cluster: Cluster,
  options: LogsOptions & { name: string },
  print: Print,
): Promise<number> {
  const { name, rank } = options
  const job = await findJob(cluster, name)
  const { state = 'Pending', lastFailure } = readStatus(job)
  const all = byBlame(await podsOf(cluster, job), lastFailure)
  const ranks = ranksPerPod(job)
  const chosen = rank === undefined ? all : all.filter(pod => rankOf(pod) <= rank && rank < rankOf(pod) + ranks)
  if (chosen.length === 0) {
    const which = rank === undefined ? 'no pods' : `no pod of rank ${rank}`
    print(`${name} is ${state} and has ${which} now, so there are no logs.`)
    if (lastFailure) print(lastWords(lastFailure))
    return 1
  }
  const shown = options.all ? chosen : chosen.slice(0, SHOWN)
  // The logs of an ended attempt are gone with its pods; only the record of its failure is left.
  if (lastFailure && !shown.some(pod => isCulprit(pod, lastFailure))) print(lastWords(lastFailure))
  const show = (line: string) => (options.raw ? line : readable(line, ranks > 1))
  if (options.follow) await followAll(cluster, shown, { ...options, print, show })
  else for (const pod of shown) await printLog(cluster, pod, { ...options, print, show })
  const hidden = chosen.length - shown.length
  if (hidden > 0) print(`\n${hidden} more workers are not shown: give --all, or --rank <n> for one`)
  return 0
}

/** The pod that failed first, then the others that failed by time, then the rest by rank. */
export function byBlame(pods: readonly Pod[], lastFailure: FailureStatus | undefined): Pod[] {
  const place = (pod: Pod): [number, number] => {
    if (lastFailure && isCulprit(pod, lastFailure)) return [0, 0]
    if (outcomeOf(pod) === 'failed') return [1, Date.parse(workerEnd(pod)?.finishedAt ?? '') || 0]
    return [2, 0]
  }
  return pods.toSorted((a, b) => {
    const [[group, time], [otherGroup, otherTime]] = [place(a), place(b)]
    return group - otherGroup || time - otherTime || rankOf(a) - rankOf(b)
  })
}

const isCulprit = ({ metadata }: Pod, { podName, attempt }: FailureStatus): boolean =>
  metadata.name === podName && metadata.labels?.[LABEL.attempt] === String(attempt)

const lastWords = ({ attempt, podName, exitCode, reason, message }: FailureStatus): string =>
  `Attempt ${attempt} ended with ${podName}, whose pod is gone: ${exitCode === undefined ? '' : `exit code ${exitCode}, `}${reason}: ${message}\n`

interface Printing extends LogsOptions {
  print: Print
  /** Turns a line of the log into a line to print. */
  show: (line: string) => string
}

async function printLog(cluster: Cluster, pod: Pod, options: Printing): Promise<void> {
  const { print } = options
  print(`==> ${heading(pod)}`)
  try {
    const text = await cluster.text(logPath(cluster, pod), query(pod, options))
    for (const line of text.split('\n').filter(Boolean)) print(options.show(line))
  } catch (error) {
    print(notStarted(error))
  }
}

/** Prints all logs at once, each line after its rank; returns when every worker has ended. */
async function followAll(cluster: Cluster, pods: readonly Pod[], options: Printing): Promise<void> {
  const width = Math.max(...pods.map(pod => String(rankOf(pod)).length))
  const stop = new AbortController()
  const one = async (pod: Pod) => {
    const prefix = pods.length === 1 ? '' : `${String(rankOf(pod)).padStart(width)} | `
    const lines = cluster.lines(logPath(cluster, pod), { ...query(pod, options), follow: true }, stop.signal)
    try {
      for await (const line of lines) options.print(`${prefix}${options.show(line)}`)
    } catch (error) {
      options.print(`${prefix}${notStarted(error)}`)
    }
  }
  await Promise.all(pods.map(one))
}

/**
 * The text in place of a log that cannot be read. A container that waits, a pod that is gone or a
 * node that does not answer must not keep the other logs back.
 */
function notStarted(error: unknown): string {
  if (error instanceof ClusterError && error.code !== undefined && ![401, 403].includes(error.code))
    return `(no log: ${error.message})`
  throw error
}

const query = (pod: Pod, { tail }: LogsOptions): Query => ({ container: speaker(pod), tailLines: tail })

/**
 * The container with something to tell: the worker, or before it has begun the init container that
 * failed or runs.
 */
export function speaker(pod: Pod): string {
  const has = (container: ContainerStatus, ...states: ('running' | 'terminated')[]) =>
    states.some(state => container.state?.[state] !== undefined)
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {}
  if (containerStatuses.some(each => each.name === CONTAINER && has(each, 'running', 'terminated'))) return CONTAINER
  const failed = initContainerStatuses.find(({ state }) => (state?.terminated?.exitCode ?? 0) !== 0)
  return (failed ?? initContainerStatuses.findLast(each => has(each, 'running')))?.name ?? CONTAINER
}
const logPath = (cluster: Cluster, { metadata }: Pod) =>
  `${podPath(metadata.namespace ?? cluster.namespace, metadata.name)}/log`

function heading(pod: Pod): string {
  const { name, labels } = pod.metadata
  const end = workerEnd(pod)
  const node = pod.spec?.nodeName === undefined ? '' : ` on ${pod.spec.nodeName}`
  const how = end === undefined ? (pod.status?.phase ?? 'Pending') : `ended with code ${end.exitCode}`
  const container = speaker(pod) === CONTAINER ? '' : `, container ${speaker(pod)}`
  return `${name}${container}${node}, attempt ${labels?.[LABEL.attempt] ?? '?'}: ${how}`
}

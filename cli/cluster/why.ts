// scmoe why: one paragraph that says what a job waits for, or why it failed, and what to do. Made
// from a job and its pods as the API server returns them. Pure.

import { type Advice, adviceOnFailure, REASONS } from '../../crds/advice.ts'
import { LABEL } from '../../crds/contract.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import type { ScMoEJobStatus } from '../../crds/status.ts'
import { isReady, isStopping, outcomeOf } from '../../operator/objects/pod-state.ts'
import { type Job, type Pod, podName } from '../../operator/objects/wire.ts'
import { reportingPort } from '../../operator/plan/report.ts'
import { managedElsewhere, readSpec, readStatus } from '../../operator/plan/view.ts'
import { duration, nats, paragraph, plural } from '../sentence.ts'

export interface Seen {
  job: Job
  /** All pods that carry the job's name. */
  pods: readonly Pod[]
  /** Milliseconds since 1970. */
  now: number
}

interface Facts extends Seen {
  name: string
  status: ScMoEJobStatus
  spec: ScMoEJobSpec | undefined
}

/** A running operator handles a job within a second; after this time there is none. */
const UNSEEN_SECONDS = 15
/** After this many intervals without a report, a running job counts as silent. */
const SILENT_INTERVALS = 4

export function why(seen: Seen): string {
  const { job } = seen
  const { name, namespace = 'default', deletionTimestamp } = job.metadata
  if (deletionTimestamp !== undefined)
    return paragraph(`${name} is being deleted`, waitsFor(seen.pods), forceful(seen.pods, seen.now))
  if (managedElsewhere(job))
    return paragraph(
      `${name} is managed by another controller (spec.managedBy), so the ScMoE operator leaves it alone`,
      'Ask that controller',
    )
  const reading = readSpec(job)
  const status = readStatus(job)
  if (status.state === undefined) return unseen(name, namespace, secondsSince(job.metadata.creationTimestamp, seen.now))
  const facts: Facts = { ...seen, name, status, spec: 'spec' in reading ? reading.spec : undefined }
  return paragraph(...once([...explain(facts), ...pending(facts)]))
}

/** Each sentence once: the reason and the failure behind it may have the same advice. */
function once(parts: readonly string[]): string[] {
  const said = new Set<string>()
  return parts.map(part =>
    part
      .split(SENTENCE)
      .filter(sentence => !said.has(bare(sentence)) && said.add(bare(sentence)))
      .join(' '),
  )
}
const SENTENCE = /(?<=[.?]) (?=[A-Z])/
const bare = (sentence: string) => sentence.replace(/[.?]$/, '')

function explain(facts: Facts): string[] {
  const { name, status } = facts
  if (status.state === 'Complete') return [complete(facts)]
  if (status.state === 'Running') return running(facts)
  if (status.state === 'Failed') return [`${name} has failed: ${status.message ?? ''}`, blame(facts), remedy(facts)]
  if (status.state === 'Restarting') return restarting(facts)
  return waiting(facts)
}

/** For Pending, Queued, Starting, Stalled and Suspended: the operator's message, pods, remedy. */
function waiting(facts: Facts): string[] {
  const { name, status, pods } = facts
  const reason = status.reason === undefined || status.reason === status.state ? '' : ` (${status.reason})`
  const detail = status.reason === 'WorkersStarting' ? unready(facts) : ''
  return [
    `${name} is ${status.state}${reason}: ${status.message ?? ''}`,
    detail,
    status.reason === 'WaitingForPods' || status.reason === 'Stopping' ? waitsFor(pods) : '',
    remedy(facts),
    ...history(status),
  ]
}

function restarting(facts: Facts): string[] {
  const { name, status } = facts
  const advice = remedy(facts)
  return [
    `${name} is restarting: ${status.message ?? ''}`,
    next(facts),
    // If nothing has to be done, the sentence about the next attempt says enough.
    advice.startsWith('Nothing') || status.reason === 'WaitingForPods' ? '' : advice,
    ...history(status),
    // A gang that changes its size did not fail, so there is nothing to blame.
    status.reason?.startsWith('Scaled') ? '' : blame(facts),
  ]
}

function running(facts: Facts): string[] {
  const { name, status } = facts
  const { progress, throughput, lastCheckpoint } = status
  if (progress === undefined)
    return [`${name} is running; rank 0 has not reported a step yet`, silence(facts), ...history(status)]
  const figures = [
    `step ${progress.step} of ${progress.totalSteps}`,
    progress.lossMilli !== undefined && `loss ${nats(progress.lossMilli)}`,
    throughput?.tokensPerSecond !== undefined && `${throughput.tokensPerSecond} tokens/s`,
    throughput?.overlapPercent !== undefined && `${throughput.overlapPercent} % of the all-to-all hidden`,
    progress.estimatedRemainingSeconds !== undefined && `${duration(progress.estimatedRemainingSeconds)} left`,
    lastCheckpoint && `newest checkpoint at step ${lastCheckpoint.step}`,
  ]
  const trouble = status.reason === 'AllWorkersReady' ? '' : capital(status.message ?? '')
  return [
    `${name} is running: ${figures.filter(Boolean).join(', ')}`,
    trouble,
    trouble === '' ? '' : unready(facts),
    trouble === '' ? '' : remedy(facts),
    silence(facts),
    ...history(status),
  ]
}

function complete({ name, status }: Facts): string {
  const seconds = secondsBetween(status.startTime, status.completionTime)
  const { lossMilli, evaluationLossMilli } = status.progress ?? {}
  const parts = [
    status.message ?? 'all steps are done',
    seconds !== undefined && `in ${duration(seconds)}`,
    lossMilli !== undefined && `with loss ${nats(lossMilli)}`,
    evaluationLossMilli !== undefined && `(${nats(evaluationLossMilli)} on held-out text)`,
  ]
  return `${name} is complete: ${parts.filter(Boolean).join(' ')}`
}

/** The remedy for the cause of the last failure. */
function blame({ status: { lastFailure }, name }: Facts): string {
  const advice = lastFailure && adviceOnFailure(lastFailure.reason)
  return fill(advice?.remedy ?? '', name, lastFailure?.podName)
}

/** A sentence about earlier attempts, unless the status message is about the same failure. */
function history({ restarts = 0, lastFailure, message: told = '' }: ScMoEJobStatus): string[] {
  if (restarts === 0 || lastFailure === undefined) return []
  const { podName: failedPod, attempt, reason, message } = lastFailure
  if (told.startsWith(`${failedPod} `)) return []
  return [
    `It was restarted ${plural(restarts, 'time')}; most recently, ${failedPod} failed in attempt ${attempt}: ${reason}: ${message}`,
  ]
}

function next({ status, pods, now }: Facts): string {
  const seconds = status.nextRestartTime === undefined ? 0 : (Date.parse(status.nextRestartTime) - now) / 1000
  if (seconds > 0)
    return `Attempt ${status.attempt} starts in ${duration(seconds)}, from the newest checkpoint if there is one`
  return forceful(pods, now)
}

/** A sentence for a spec that was changed and that the operator has not handled yet. */
function pending({ job, status }: Facts): string[] {
  const { generation } = job.metadata
  const behind = generation !== undefined && (status.observedGeneration ?? generation) < generation
  return behind && status.reason !== 'InvalidSpec' && !isFinal(status)
    ? ['The operator has not acted on the last change of its spec yet; if this persists, the operator is not running']
    : []
}

const isFinal = ({ state }: ScMoEJobStatus) => state === 'Complete' || state === 'Failed'

function unseen(name: string, namespace: string, seconds: number | undefined): string {
  if (seconds !== undefined && seconds < UNSEEN_SECONDS)
    return paragraph(
      `${name} was created ${duration(seconds)} ago and no operator has looked at it yet`,
      'Run this command again in a few seconds',
    )
  return paragraph(
    `No operator has looked at ${name}${seconds === undefined ? '' : `, created ${duration(seconds)} ago`}`,
    'Check that one is installed and running: `kubectl get deployments --all-namespaces --selector app.kubernetes.io/name=scmoe`',
    `If it is, check that it watches namespace ${namespace}: chart value watchNamespaces`,
  )
}

function remedy({ status, name, pods }: Facts): string {
  const table: Readonly<Record<string, Advice>> = REASONS
  const known = status.reason !== undefined && Object.hasOwn(table, status.reason) ? table[status.reason] : undefined
  // Before a worker runs there is no log to read.
  if (status.reason === 'WorkersStarting' && !pods.some(hasLog)) return ''
  const pod = pods.find(each => isStopping(each)) ?? pods[0]
  return fill(known?.remedy ?? '', name, pod?.metadata.name)
}

const fill = (text: string, job: string, pod = podName(job, 0)) =>
  text.replaceAll('{job}', job).replaceAll('{pod}', pod)

/** e.g. `1 of 2 workers is not ready: gpt-worker-1 (ContainerCreating)`. */
function unready({ pods, status }: Facts): string {
  const attempt = String(status.attempt ?? 1)
  const gang = pods.filter(({ metadata }) => metadata.labels?.[LABEL.attempt] === attempt)
  const late = gang.filter(pod => !isReady(pod) && outcomeOf(pod) === 'active')
  if (late.length === 0) return ''
  const named = late.slice(0, 3).map(pod => `${pod.metadata.name} (${condition(pod)})`)
  const more = late.length > named.length ? ` and ${late.length - named.length} more` : ''
  const are = late.length === 1 ? 'is' : 'are'
  return `${late.length} of ${plural(gang.length, 'worker')} ${are} not ready: ${named.join(', ')}${more}`
}

/** Whether a container of the pod has begun, and so may have written a log. */
const hasLog = ({ status }: Pod): boolean =>
  [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])].some(
    ({ state }) => state?.running !== undefined || state?.terminated !== undefined,
  )

/** Roughly the word that `kubectl get pods` shows. */
function condition({ status, spec }: Pod): string {
  const containers = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])]
  const reason = containers.map(({ state }) => state?.waiting?.reason).find(Boolean)
  if (reason !== undefined) return reason
  if (spec?.nodeName === undefined) return 'not placed on a node'
  return status?.phase === 'Running' ? 'runs, but is not ready' : (status?.phase ?? 'Pending')
}

function waitsFor(pods: readonly Pod[]): string {
  const names = pods.filter(isStopping).map(({ metadata }) => metadata.name)
  if (names.length === 0) return ''
  return `It waits for ${names.length === 1 ? `pod ${names[0]}` : `${names.length} pods`} to end`
}

/** A sentence for a pod that does not end after its grace period, because its node is gone. */
function forceful(pods: readonly Pod[], now: number): string {
  const stuck = pods.find(({ metadata }) => Date.parse(metadata.deletionTimestamp ?? '') + 60_000 < now)
  if (stuck === undefined) return ''
  const { name, namespace = 'default' } = stuck.metadata
  const node = stuck.spec?.nodeName === undefined ? 'its node' : `node ${stuck.spec.nodeName}`
  return `${name} should have ended a minute ago: if ${node} is gone for good, run \`kubectl delete pod ${name} --namespace ${namespace} --force\``
}

/** A sentence for a running job that has not reported for a long time. */
function silence({ job, spec, status, now, name }: Facts): string {
  if (status.reason !== 'AllWorkersReady') return ''
  const seen = status.throughput?.observedTime ?? since(status, 'Running')
  const seconds = secondsSince(seen, now)
  if (seconds === undefined || seconds < SILENT_INTERVALS * (spec?.reporting.intervalSeconds ?? 15)) return ''
  const heard = status.throughput === undefined ? 'It has not reported for' : 'Rank 0 has not reported for'
  return `${heard} ${duration(seconds)}. It may be busy with its first step or a checkpoint, it may hang, or a network policy may keep the operator from its port ${reportingPort(job)}: \`scmoe logs ${name}\` shows which`
}

const since = ({ conditions = [] }: ScMoEJobStatus, type: string) =>
  conditions.find(each => each.type === type && each.status === 'True')?.lastTransitionTime

function secondsSince(time: string | undefined, now: number): number | undefined {
  const seconds = (now - Date.parse(time ?? '')) / 1000
  return Number.isNaN(seconds) ? undefined : seconds
}

function secondsBetween(from: string | undefined, to: string | undefined): number | undefined {
  return to === undefined ? undefined : secondsSince(from, Date.parse(to))
}

const capital = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`

// What a job waits for, or why it failed, and what to do: one paragraph from what the API server shows. Pure.

import { type Advice, adviceOnFailure, REASONS } from '../../crds/advice.ts'
import { LABEL, PORT } from '../../crds/contract.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import type { ScMoEJobStatus } from '../../crds/status.ts'
import { type Job, type Pod, podName } from '../../operator/objects/wire.ts'
import { isReady, isStopping, outcomeOf } from '../../operator/plan/gang.ts'
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

/** An operator looks at a job within a second; later than this it is not there. */
const UNSEEN_SECONDS = 15
/** A running job that was not reported on for as many intervals is no longer heard of. */
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
  return paragraph(...explain(facts), ...pending(facts))
}

function explain(facts: Facts): string[] {
  const { name, status } = facts
  if (status.state === 'Complete') return [complete(facts)]
  if (status.state === 'Running') return running(facts)
  if (status.state === 'Failed') return [`${name} has failed: ${status.message ?? ''}`, blame(facts), remedy(facts)]
  if (status.state === 'Restarting') return restarting(facts)
  return waiting(facts)
}

/** Pending, Queued, Starting, Stalled, Suspended: the operator's own words, the pods behind them, and the remedy. */
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
    // That nothing has to be done is said by what happens next.
    advice.startsWith('Nothing') || status.reason === 'WaitingForPods' ? '' : advice,
    ...history(status),
    // A gang that changes its size did not fail.
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

/** What can be done about the failure itself. */
function blame({ status: { lastFailure }, name }: Facts): string {
  const advice = lastFailure && adviceOnFailure(lastFailure.reason)
  return fill(advice?.remedy ?? '', name, lastFailure?.podName)
}

/** Of earlier attempts, unless the status' own sentence is about it. */
function history({ restarts = 0, lastFailure, message: told = '' }: ScMoEJobStatus): string[] {
  if (restarts === 0 || lastFailure === undefined) return []
  const { podName, attempt, reason, message } = lastFailure
  if (told.startsWith(`${podName} `)) return []
  return [
    `It was restarted ${plural(restarts, 'time')}; last, ${podName} failed in attempt ${attempt}: ${reason}: ${message}`,
  ]
}

function next({ status, pods, now }: Facts): string {
  const seconds = status.nextRestartTime === undefined ? 0 : (Date.parse(status.nextRestartTime) - now) / 1000
  if (seconds > 0)
    return `Attempt ${status.attempt} starts in ${duration(seconds)}, from the newest checkpoint if there is one`
  return forceful(pods, now)
}

/** The spec was changed and the operator has not answered. */
function pending({ job, status }: Facts): string[] {
  const { generation } = job.metadata
  const behind = generation !== undefined && (status.observedGeneration ?? generation) < generation
  return behind && status.reason !== 'InvalidSpec' && !isFinal(status)
    ? ['The last change of its spec is not acted on yet; if that stays so, the operator does not run']
    : []
}

const isFinal = ({ state }: ScMoEJobStatus) => state === 'Complete' || state === 'Failed'

function unseen(name: string, namespace: string, seconds: number | undefined): string {
  if (seconds !== undefined && seconds < UNSEEN_SECONDS)
    return paragraph(`${name} was created ${duration(seconds)} ago and no operator has looked at it yet`, 'Look again')
  return paragraph(
    `No operator has looked at ${name}${seconds === undefined ? '' : `, created ${duration(seconds)} ago`}`,
    'Is one installed and running: `kubectl get deployments --all-namespaces --selector app.kubernetes.io/name=scmoe`?',
    `If it is, it may watch other namespaces than ${namespace}: chart value watchNamespaces`,
  )
}

function remedy({ status, name, pods }: Facts): string {
  const table: Readonly<Record<string, Advice>> = REASONS
  const known = status.reason !== undefined && Object.hasOwn(table, status.reason) ? table[status.reason] : undefined
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
  return `Not ready of ${plural(gang.length, 'worker')}: ${named.join(', ')}${more}`
}

/** The word that `kubectl get pods` shows, more or less. */
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

/** Past its grace period a pod does not end by itself any more: its node is gone. */
function forceful(pods: readonly Pod[], now: number): string {
  const stuck = pods.find(({ metadata }) => Date.parse(metadata.deletionTimestamp ?? '') + 60_000 < now)
  if (stuck === undefined) return ''
  const { name, namespace = 'default' } = stuck.metadata
  const node = stuck.spec?.nodeName === undefined ? 'its node' : `node ${stuck.spec.nodeName}`
  return `${name} should have ended a minute ago: if ${node} is gone for good, \`kubectl delete pod ${name} --namespace ${namespace} --force\``
}

/** Where the operator has not said more about it. */
function silence({ spec, status, now, name }: Facts): string {
  if (status.reason !== 'AllWorkersReady') return ''
  const seen = status.throughput?.observedTime ?? since(status, 'Running')
  const seconds = secondsSince(seen, now)
  if (seconds === undefined || seconds < SILENT_INTERVALS * (spec?.reporting.intervalSeconds ?? 15)) return ''
  const heard = status.throughput === undefined ? 'It has not been heard of for' : 'Rank 0 has not been heard of for'
  return `${heard} ${duration(seconds)}: it is busy with its first step or a checkpoint, it hangs, or a network policy keeps the operator from its port ${PORT.http}; \`scmoe logs ${name}\` shows which`
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

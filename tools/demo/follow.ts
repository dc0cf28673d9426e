// Follows one job with the commands that a user would type, and reads the figures of its status.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Kubectl } from '../install.ts'

/** The part of an ScMoEJob that the demo reads; crds/status.ts has all of it. */
export interface Job {
  metadata: { name: string }
  spec: { workers?: { replicas?: number }; checkpoint?: { volume?: { persistentVolumeClaim?: { claimName: string } } } }
  status?: {
    state?: string
    reason?: string
    message?: string
    progress?: {
      step: number
      lossMilli?: number
      initialLossMilli?: number
      evaluationLossMilli?: number
      initialEvaluationLossMilli?: number
    }
    throughput?: {
      tokensPerSecond?: number
      stepTimeMilliseconds?: number
      communicationMilliseconds?: number
      overlapPercent?: number
      communicationShareOfMoePercent?: number
      schedule?: string
    }
    lastCheckpoint?: { step: number }
    lastFailure?: { podName: string; message: string }
  }
}

type Say = (line: string) => void

const POLL_MILLISECONDS = 2000
const QUIET_POLL_MILLISECONDS = 2500
const AGE = /\s+\S+\s*$/

/**
 * Prints the row of `kubectl get scmoejobs` whenever it changes, until the job is Complete. Throws
 * an error with the job's message if it is Failed.
 */
export async function followJob(kubectl: Kubectl, namespace: string, name: string, say: Say): Promise<Job> {
  let last = ''
  for (;;) {
    const [header = '', row = ''] = (await kubectl('get', 'scmoejobs', name, '-n', namespace)).split('\n')
    const shown = row.replace(AGE, '')
    if (last === '') say(header)
    if (shown !== last) say(row)
    last = shown
    const job = await ended(kubectl, namespace, name)
    if (job !== undefined) return job
    await sleep(POLL_MILLISECONDS)
  }
}

/**
 * Waits until the job is Complete, and asks seldom, because each question costs processor time.
 * Throws an error with the job's message if it is Failed.
 */
export async function completed(kubectl: Kubectl, namespace: string, name: string): Promise<Job> {
  for (;;) {
    await sleep(QUIET_POLL_MILLISECONDS)
    const job = await ended(kubectl, namespace, name)
    if (job !== undefined) return job
  }
}

/** The job if it is Complete; throws an error with its message if it is Failed. */
async function ended(kubectl: Kubectl, namespace: string, name: string): Promise<Job | undefined> {
  const job = JSON.parse(await kubectl('get', 'scmoejob', name, '-n', namespace, '-o', 'json')) as Job
  if (job.status?.state === 'Failed') throw new Error(failureText(job))
  return job.status?.state === 'Complete' ? job : undefined
}

function failureText({ metadata, status }: Job): string {
  const failure = status?.lastFailure
  const first = failure === undefined ? '' : ` ${failure.podName}: ${failure.message}`
  return `${metadata.name} failed: ${status?.reason ?? ''} ${status?.message ?? ''}${first}`
}

const nats = (milli: number | undefined): string => (milli === undefined ? '?' : (milli / 1000).toFixed(3))

export function lossLine({ status }: Job): string {
  const p = status?.progress
  return (
    `loss ${nats(p?.initialLossMilli)} -> ${nats(p?.lossMilli)}, on held-out text ` +
    `${nats(p?.initialEvaluationLossMilli)} -> ${nats(p?.evaluationLossMilli)} nats per byte`
  )
}

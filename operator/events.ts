// Events for users. An event that repeats becomes a series of the first one, as in client-go, so
// that a job that goes back and forth does not fill the namespace. Events are sent in the
// background, those of one namespace in order and those of different ones beside each other. An
// event that is lost is not sent again.

import { setTimeout as sleep } from 'node:timers/promises'
import { API_VERSION, CONTROLLER, KIND } from '../crds/contract.ts'
import { isCode } from './api/errors.ts'
import type { Kube } from './api/kube.ts'
import { clipBytes, type Job, type KubeObject } from './objects/wire.ts'
import type { Note } from './plan/decision.ts'

type Sent = { name: string; count: number; at: number }
type Pending = { job: Job; note: Note; at: number }
export type EventOptions = {
  /** Name of this replica. */
  identity: string
  /** While true, events of this namespace wait and leave the API server to more urgent requests. */
  shouldYield?: (namespace: string) => boolean
  onLost?: (job: Job, error: unknown) => void
  /** Whether the job exists. Of a job that is gone nothing is remembered. */
  isThere?: (job: Job) => boolean
}

const SERIES_MILLISECONDS = 10 * 60_000
/** Events that are remembered for a series, of each job. The oldest are forgotten first. */
const REMEMBERED = 20
/** Events of one namespace that wait. The oldest are lost first. */
const WAITING = 1000
const YIELD_MILLISECONDS = 100
/** An event waits no longer for more urgent requests. */
const PATIENCE_MILLISECONDS = 20_000
const ANSWER_MILLISECONDS = 10_000
/** The API server refuses longer ones. */
const NOTE_BYTES = 1024
const INSTANCE_BYTES = 128

export class Events {
  readonly #kube: Pick<Kube, 'call'>
  readonly #options: EventOptions
  /** Events that were sent, by the job's uid and all else that makes two events the same. */
  readonly #sent = new Map<string, Map<string, Sent>>()
  /** Events that wait, by namespace. */
  readonly #pending = new Map<string, Pending[]>()
  readonly #draining = new Map<string, Promise<void>>()

  constructor(kube: Pick<Kube, 'call'>, options: EventOptions) {
    this.#kube = kube
    this.#options = options
  }

  /** Sends the event in the background, after those before it. */
  send(job: Job, note: Note): void {
    const { namespace = 'default' } = job.metadata
    const pending = this.#pending.get(namespace) ?? []
    this.#pending.set(namespace, pending)
    pending.push({ job, note, at: Date.now() })
    const lost = pending.length > WAITING ? pending.shift() : undefined
    if (lost !== undefined) this.#options.onLost?.(lost.job, new Error(`${WAITING} later ones of its namespace wait`))
    if (!this.#draining.has(namespace)) this.#draining.set(namespace, this.#drain(namespace, pending))
  }

  /** Forgets the events of a job that is gone. */
  forget(uid: string): void {
    this.#sent.delete(uid)
  }

  /** Number of events that are remembered for a series. */
  get remembered(): number {
    return [...this.#sent.values()].reduce((sum, sent) => sum + sent.size, 0)
  }

  /** Resolves when all events are sent or lost. */
  async settled(): Promise<void> {
    while (this.#draining.size > 0) await Promise.all(this.#draining.values())
  }

  async #drain(namespace: string, pending: Pending[]): Promise<void> {
    for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
      const { job, at } = next
      while (this.#options.shouldYield?.(namespace) === true && Date.now() < at + PATIENCE_MILLISECONDS)
        await sleep(YIELD_MILLISECONDS)
      await this.#send(next).catch((error: unknown) => this.#options.onLost?.(job, error))
    }
    this.#pending.delete(namespace)
    this.#draining.delete(namespace)
  }

  async #send(pending: Pending): Promise<void> {
    const { job, note } = pending
    const uid = job.metadata.uid ?? ''
    const key = [note.type, note.reason, note.action, note.note].join('\n')
    const known = this.#sent.get(uid)?.get(key)
    const isRecent = known !== undefined && Date.now() - known.at < SERIES_MILLISECONDS
    if (isRecent && (await this.#continue(pending, known))) return
    const name = await this.#create(pending)
    if (this.#options.isThere?.(job) === false) return
    const sent = this.#sent.get(uid) ?? new Map<string, Sent>()
    this.#sent.set(uid, sent)
    sent.delete(key)
    sent.set(key, { name, count: 1, at: Date.now() })
    const [oldest] = sent.keys()
    if (oldest !== undefined && sent.size > REMEMBERED) sent.delete(oldest)
  }

  async #create({ job, note: { type, reason, action, note }, at }: Pending): Promise<string> {
    const { namespace = 'default', name, uid } = job.metadata
    const event = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { generateName: `${name}-`, namespace },
      eventTime: microTime(at),
      reportingController: CONTROLLER,
      reportingInstance: clipBytes(this.#options.identity, INSTANCE_BYTES),
      regarding: { apiVersion: API_VERSION, kind: KIND, namespace, name, uid },
      type,
      reason,
      action,
      note: clipBytes(note, NOTE_BYTES),
    }
    const created = await this.#kube.call<KubeObject>({
      method: 'POST',
      path: pathOf(namespace),
      body: event,
      timeoutMilliseconds: ANSWER_MILLISECONDS,
    })
    return created.metadata.name
  }

  /** Continues the series. False if the server has deleted the event, as it does after an hour. */
  async #continue({ job, at }: Pending, known: Sent): Promise<boolean> {
    known.count++
    known.at = Date.now()
    const body = { series: { count: known.count, lastObservedTime: microTime(at) } }
    const path = `${pathOf(job.metadata.namespace ?? 'default')}/${known.name}`
    const contentType = 'application/merge-patch+json'
    try {
      await this.#kube.call({ method: 'PATCH', path, body, contentType, timeoutMilliseconds: ANSWER_MILLISECONDS })
      return true
    } catch (error) {
      if (isCode(error, 404)) return false
      throw error
    }
  }
}

const pathOf = (namespace: string) => `/apis/events.k8s.io/v1/namespaces/${namespace}/events`
const microTime = (at: number) => new Date(at).toISOString().replace('Z', '000Z')

// Events for users. An event that repeats becomes a series of the first one, as in client-go, so
// that a job that goes back and forth does not fill the namespace. Events are sent in the
// background, and an event that is lost is not sent again.

import { setTimeout as sleep } from 'node:timers/promises'
import { API_VERSION, CONTROLLER, KIND } from '../crds/contract.ts'
import { isCode } from './api/errors.ts'
import type { Kube } from './api/kube.ts'
import { clip, type Job, type KubeObject } from './objects/wire.ts'
import type { Note } from './plan/decision.ts'

type Sent = { name: string; count: number; at: number }
type Pending = { job: Job; note: Note; time: string }
export type EventOptions = {
  /** Name of this replica. */
  identity: string
  /** While true, events wait and leave the API server to more urgent requests. */
  shouldYield?: () => boolean
  onLost?: (job: Job, error: unknown) => void
}

const SERIES_MILLISECONDS = 10 * 60_000
/** Events that are remembered for a series. The oldest are forgotten first, and then sent anew. */
const REMEMBERED = 10_000
const YIELD_MILLISECONDS = 100

export class Events {
  readonly #kube: Pick<Kube, 'call'>
  readonly #options: EventOptions
  /** Events that were sent, by everything that makes two events the same. */
  readonly #sent = new Map<string, Sent>()
  readonly #pending: Pending[] = []
  #draining: Promise<void> | undefined

  constructor(kube: Pick<Kube, 'call'>, options: EventOptions) {
    this.#kube = kube
    this.#options = options
  }

  /** Sends the event in the background, after those before it. */
  send(job: Job, note: Note): void {
    this.#pending.push({ job, note, time: microTime() })
    if (this.#pending.length > REMEMBERED) this.#pending.shift()
    this.#draining ??= this.#drain()
  }

  /** Resolves when all events are sent or lost. */
  async settled(): Promise<void> {
    await this.#draining
  }

  async #drain(): Promise<void> {
    for (let next = this.#pending.shift(); next !== undefined; next = this.#pending.shift()) {
      while (this.#options.shouldYield?.() === true) await sleep(YIELD_MILLISECONDS)
      const { job } = next
      await this.#send(next).catch((error: unknown) => this.#options.onLost?.(job, error))
    }
    this.#draining = undefined
  }

  async #send(pending: Pending): Promise<void> {
    const { job, note } = pending
    const key = [job.metadata.uid, note.type, note.reason, note.action, note.note].join('\n')
    const known = this.#sent.get(key)
    const isRecent = known !== undefined && Date.now() - known.at < SERIES_MILLISECONDS
    if (isRecent && (await this.#continue(pending, known))) return
    const name = await this.#create(pending)
    this.#sent.delete(key)
    this.#sent.set(key, { name, count: 1, at: Date.now() })
    for (const oldest of this.#sent.keys()) {
      if (this.#sent.size <= REMEMBERED) break
      this.#sent.delete(oldest)
    }
  }

  async #create({ job, note: { type, reason, action, note }, time }: Pending): Promise<string> {
    const { namespace = 'default', name, uid } = job.metadata
    const event = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { generateName: `${name}-`, namespace },
      eventTime: time,
      reportingController: CONTROLLER,
      reportingInstance: this.#options.identity,
      regarding: { apiVersion: API_VERSION, kind: KIND, namespace, name, uid },
      type,
      reason,
      action,
      note: clip(note),
    }
    const created = await this.#kube.call<KubeObject>({ method: 'POST', path: pathOf(namespace), body: event })
    return created.metadata.name
  }

  /** Continues the series. False if the server has deleted the event, as it does after an hour. */
  async #continue({ job, time }: Pending, known: Sent): Promise<boolean> {
    known.count++
    known.at = Date.now()
    const body = { series: { count: known.count, lastObservedTime: time } }
    const path = `${pathOf(job.metadata.namespace ?? 'default')}/${known.name}`
    try {
      await this.#kube.call({ method: 'PATCH', path, body, contentType: 'application/merge-patch+json' })
      return true
    } catch (error) {
      if (isCode(error, 404)) return false
      throw error
    }
  }
}

const pathOf = (namespace: string) => `/apis/events.k8s.io/v1/namespaces/${namespace}/events`
const microTime = () => new Date().toISOString().replace('Z', '000Z')

// Events for people. One that says the same of the same job again becomes a series of the first, as client-go does it, so that a job that goes back and forth
// does not fill the namespace. Nobody waits for one, and one that is lost is not worth a retry.

import { setTimeout as sleep } from 'node:timers/promises'
import { API_VERSION, CONTROLLER, KIND } from '../crds/contract.ts'
import { isCode } from './api/errors.ts'
import type { Kube } from './api/kube.ts'
import { clip, type Job, type KubeObject } from './objects/wire.ts'
import type { Note } from './plan/plan.ts'

type Told = { name: string; count: number; at: number }
type Owed = { job: Job; note: Note; time: string }
export type EventOptions = {
  /** Of this replica. */
  identity: string
  /** Others need the API server more. */
  yields?: () => boolean
  onLost?: (job: Job, error: unknown) => void
}

const SERIES_MILLISECONDS = 10 * 60_000
/** The oldest are forgotten first: they then are told anew. */
const REMEMBERED = 10_000
const YIELD_MILLISECONDS = 100

export class Events {
  readonly #kube: Pick<Kube, 'call'>
  readonly #options: EventOptions
  readonly #told = new Map<string, Told>()
  readonly #owed: Owed[] = []
  #telling: Promise<void> | undefined

  constructor(kube: Pick<Kube, 'call'>, options: EventOptions) {
    this.#kube = kube
    this.#options = options
  }

  /** It is told beside the work, after those before it. */
  tell(job: Job, note: Note): void {
    this.#owed.push({ job, note, time: microTime() })
    if (this.#owed.length > REMEMBERED) this.#owed.shift()
    this.#telling ??= this.#drain()
  }

  /** All are told, or lost. */
  async settled(): Promise<void> {
    await this.#telling
  }

  async #drain(): Promise<void> {
    for (let next = this.#owed.shift(); next !== undefined; next = this.#owed.shift()) {
      while (this.#options.yields?.() === true) await sleep(YIELD_MILLISECONDS)
      const { job } = next
      await this.#tell(next).catch((error: unknown) => this.#options.onLost?.(job, error))
    }
    this.#telling = undefined
  }

  async #tell(owed: Owed): Promise<void> {
    const { job, note } = owed
    const key = [job.metadata.uid, note.type, note.reason, note.action, note.note].join('\n')
    const known = this.#told.get(key)
    if (known !== undefined && Date.now() - known.at < SERIES_MILLISECONDS && (await this.#again(owed, known))) return
    const name = await this.#first(owed)
    this.#told.delete(key)
    this.#told.set(key, { name, count: 1, at: Date.now() })
    for (const oldest of this.#told.keys()) {
      if (this.#told.size <= REMEMBERED) break
      this.#told.delete(oldest)
    }
  }

  async #first({ job, note: { type, reason, action, note }, time }: Owed): Promise<string> {
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
    const made = await this.#kube.call<KubeObject>({ method: 'POST', path: pathOf(namespace), body: event })
    return made.metadata.name
  }

  /** False: the server has it no more; events are kept for an hour. */
  async #again({ job, time }: Owed, known: Told): Promise<boolean> {
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

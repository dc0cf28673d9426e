// Events for people. One that says the same of the same job again becomes a series of the first, as client-go does it, so that a job that goes back and forth
// does not fill the namespace.

import { API_VERSION, CONTROLLER, KIND } from '../crds/contract.ts'
import { isCode } from './errors.ts'
import type { Kube } from './kube.ts'
import { clip, type Job, type KubeObject } from './objects.ts'
import type { Note } from './plan.ts'

type Told = { name: string; count: number; at: number }

const SERIES_MILLISECONDS = 10 * 60_000
/** The oldest are forgotten first: they then are told anew. */
const REMEMBERED = 10_000

export class Events {
  readonly #kube: Pick<Kube, 'call'>
  readonly #identity: string
  readonly #told = new Map<string, Told>()

  /** `identity`: of this replica. */
  constructor(kube: Pick<Kube, 'call'>, identity: string) {
    this.#kube = kube
    this.#identity = identity
  }

  async tell(job: Job, note: Note): Promise<void> {
    const key = [job.metadata.uid, note.type, note.reason, note.action, note.note].join('\n')
    const known = this.#told.get(key)
    if (known !== undefined && Date.now() - known.at < SERIES_MILLISECONDS && (await this.#again(job, known))) return
    const name = await this.#first(job, note)
    this.#told.delete(key)
    this.#told.set(key, { name, count: 1, at: Date.now() })
    for (const oldest of this.#told.keys()) {
      if (this.#told.size <= REMEMBERED) break
      this.#told.delete(oldest)
    }
  }

  async #first(job: Job, { type, reason, action, note }: Note): Promise<string> {
    const { namespace = 'default', name, uid } = job.metadata
    const event = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { generateName: `${name}-`, namespace },
      eventTime: microTime(),
      reportingController: CONTROLLER,
      reportingInstance: this.#identity,
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
  async #again(job: Job, known: Told): Promise<boolean> {
    known.count++
    known.at = Date.now()
    const body = { series: { count: known.count, lastObservedTime: microTime() } }
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

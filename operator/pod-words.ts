// Reads the events of pods that wait for their volumes. Only events say why a volume is not
// mounted. Few pods wait for long, and each of them is asked about now and then, beside the
// reconciles.

import { messageOf } from './api/errors.ts'
import { Kube } from './api/kube.ts'
import { isPreparing, type PodEvent, type PodWords, wordsOf } from './objects/pod-words.ts'
import { keyOf, type Pod } from './objects/wire.ts'
import { type Logger, metrics } from './telemetry.ts'

export type PodWordsOptions = {
  kubeconfig: string | undefined
  /** Called when the events of a pod of this job (`namespace/name`) say something new. */
  onNews: (job: string) => void
  log: Logger
}

/** A pod that is not prepared after this time is asked about, and again after as long. */
const PAUSE_MILLISECONDS = 10_000
/** So many pods of a job are asked about. The others wait for the same, or for these. */
const PODS = 2
const CONCURRENCY = 2
/** Requests that wait. With more, a pod is asked about later. */
const LONGEST_QUEUE = 100

/** Since when a pod waits, when it was last asked about, and what its events said. */
type Known = { since: number; asked?: number; words?: string }

export class PodWordsReader {
  readonly #kube: Kube
  readonly #options: PodWordsOptions
  /** The pods that wait, by uid, of each job. */
  readonly #jobs = new Map<string, Map<string, Known>>()
  readonly #queue: (() => Promise<void>)[] = []
  #underWay = 0

  constructor(options: PodWordsOptions) {
    this.#options = options
    this.#kube = new Kube(options.kubeconfig, { onRequest: metrics.apiRequest })
  }

  /** Returns what is known about the pods of a job, and asks about those that have waited long. */
  of(job: string, pods: readonly Pod[]): PodWords {
    const now = performance.now()
    const before = this.#jobs.get(job)
    const waiting = pods.filter(isPreparing)
    const knowns = waiting.map(({ metadata: { uid = '' } }) => [uid, before?.get(uid) ?? { since: now }] as const)
    if (knowns.length === 0) this.#jobs.delete(job)
    else this.#jobs.set(job, new Map<string, Known>(knowns))
    for (const pod of waiting.slice(0, PODS)) this.#consider(job, pod, now)
    return new Map(
      knowns.flatMap(([uid, { words }]: readonly [string, Known]) => (words === undefined ? [] : [[uid, words]])),
    )
  }

  #consider(job: string, pod: Pod, now: number): void {
    const known = this.#jobs.get(job)?.get(pod.metadata.uid ?? '')
    if (known === undefined) return
    if (known.since === now) this.#later(job)
    else if (now - (known.asked ?? known.since) >= PAUSE_MILLISECONDS) this.#ask(job, pod, known)
  }

  #later(job: string): void {
    setTimeout(() => this.#options.onNews(job), PAUSE_MILLISECONDS + 10).unref()
  }

  #ask(job: string, pod: Pod, known: Known): void {
    if (this.#queue.length >= LONGEST_QUEUE) return
    known.asked = performance.now()
    this.#queue.push(async () => this.#read(job, pod, known))
    this.#pump()
  }

  #pump(): void {
    while (this.#underWay < CONCURRENCY) {
      const next = this.#queue.shift()
      if (next === undefined) return
      this.#underWay++
      void next().finally(() => {
        this.#underWay--
        this.#pump()
      })
    }
  }

  async #read(job: string, { metadata: { namespace = '', uid = '', name } }: Pod, known: Known): Promise<void> {
    const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`
    const query = { fieldSelector: `regarding.uid=${uid}`, limit: 100 }
    try {
      const { items } = await this.#kube.call<{ items: PodEvent[] }>({ method: 'GET', path, query })
      const words = wordsOf(items)
      this.#later(job)
      if (words === undefined || words === known.words) return
      known.words = words
      this.#options.onNews(job)
    } catch (error) {
      const pod = keyOf({ metadata: { namespace, name } })
      this.#options.log.warn({ job, pod, error: messageOf(error) }, 'the events of a pod cannot be read')
    }
  }
}

// A copy of one collection of the API server, kept up to date by a paged LIST and a WATCH. After a
// problem the reflector continues from the last version it has seen, or with a new LIST if the
// server does not have that version any more (410).

import { setTimeout as sleep } from 'node:timers/promises'
import { isOlder, type KubeObject, keyOf } from '../objects/wire.ts'
import { ApiError, isCode, messageOf } from './errors.ts'
import type { Kube, Query } from './kube.ts'

export type ReflectorOptions<T> = {
  kube: Pick<Kube, 'call' | 'lines'>
  path: string
  labelSelector?: string
  /** Reduces an object to the parts that are read. `before` is the object kept so far. */
  trim?: (object: T, before: T | undefined) => T
  /**
   * `now` is undefined when the object is gone. An object that was deleted and created again is
   * first reported as gone, then as new.
   */
  onChange: (now: T | undefined, before: T | undefined) => void
  onProblem?: (problem: string) => void
  /** A watch that is silent for longer is opened again. Bookmarks come once a minute. */
  idleMilliseconds?: number
  pageSize?: number
}

type List<T> = { metadata: { resourceVersion?: string; continue?: string }; items?: T[] }
type WatchEvent<T> = { type: string; object: T & { code?: number; message?: string } }

const FIRST_BACKOFF = 100
const LONGEST_BACKOFF = 30_000
/**
 * A watch that ends earlier without a change counts as a failure, so that a server that ends every
 * watch is not asked again and again. A watch that brought changes was probably cut off for being
 * too slow in a burst. It is opened again at once, because a delay would put it further behind.
 */
const SHORTEST_WATCH = 1000

export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions<T>
  readonly #objects = new Map<string, T>()
  /** Resource version of the collection that this copy has reached. */
  #version = ''
  #synced = false

  constructor(options: ReflectorOptions<T>) {
    this.#options = options
  }

  /** Whether a first LIST has been read in full. */
  get synced(): boolean {
    return this.#synced
  }

  get(key: string): T | undefined {
    return this.#objects.get(key)
  }

  values(): IterableIterator<T> {
    return this.#objects.values()
  }

  /**
   * Takes the server's answer to a write of ours before the watch brings it, so that the next
   * decision sees it. An answer older than the watch is ignored: the object may be gone since.
   */
  put(object: T): void {
    const known = this.#objects.get(keyOf(object))
    const version = object.metadata.resourceVersion
    if (!isOlder(this.#version, version) || (known !== undefined && !isOlder(known.metadata.resourceVersion, version)))
      return
    this.#change(this.#trim(object))
  }

  async run(signal: AbortSignal): Promise<void> {
    let failures = 0
    while (!signal.aborted) {
      const start = performance.now()
      try {
        if (this.#version === '') await this.#list(signal)
        await this.#watch(signal)
        failures = 0
      } catch (error) {
        if (signal.aborted) return
        if (performance.now() - start > SHORTEST_WATCH) failures = 0
        if (isCode(error, 410)) this.#version = ''
        this.#options.onProblem?.(`${this.#options.path}: ${messageOf(error)}`)
        const asked = error instanceof ApiError ? (error.retryAfterMilliseconds ?? 0) : 0
        const delay = Math.min(FIRST_BACKOFF * 2 ** failures++, LONGEST_BACKOFF) * (0.5 + Math.random() / 2)
        await sleep(Math.max(asked, delay), undefined, { signal }).catch(() => undefined)
      }
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const seen = new Map<string, T>()
    let token: string | undefined
    let version: string
    do {
      const query: Query = {
        limit: this.#options.pageSize ?? 500,
        continue: token,
        labelSelector: this.#options.labelSelector,
      }
      const page = await this.#options.kube.call<List<T>>({ method: 'GET', path: this.#options.path, query, signal })
      for (const item of page.items ?? []) seen.set(keyOf(item), this.#trim(item))
      version = page.metadata.resourceVersion ?? ''
      token = page.metadata.continue === '' ? undefined : page.metadata.continue
    } while (token !== undefined)
    // Objects that were written after the list was taken are missing from it, but are not gone.
    for (const [key, known] of this.#objects)
      if (!seen.has(key) && !isOlder(version, known.metadata.resourceVersion)) this.#remove(key)
    for (const [key, item] of seen) {
      const known = this.#objects.get(key)
      if (known === undefined || isOlder(known.metadata.resourceVersion, item.metadata.resourceVersion))
        this.#change(item)
    }
    this.#version = version
    this.#synced = true
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const silence = new AbortController()
    const start = performance.now()
    let changes = 0
    const idle = this.#options.idleMilliseconds ?? 90_000
    const timer = setTimeout(() => silence.abort(new Error(`watch silent for ${idle} ms`)), idle)
    try {
      const query: Query = {
        watch: true,
        allowWatchBookmarks: true,
        resourceVersion: this.#version,
        labelSelector: this.#options.labelSelector,
        // A random time keeps the watches of a restarted server from ending together.
        timeoutSeconds: 300 + Math.floor(Math.random() * 300),
      }
      const lines = this.#options.kube.lines<WatchEvent<T>>(
        { method: 'GET', path: this.#options.path, query },
        AbortSignal.any([signal, silence.signal]),
      )
      for await (const line of lines) {
        timer.refresh()
        this.#handle(line)
        if (line.type !== 'BOOKMARK') changes++
      }
      if (changes === 0 && performance.now() - start < SHORTEST_WATCH) throw new Error('watch ended at once')
    } finally {
      clearTimeout(timer)
    }
  }

  #handle(event: WatchEvent<T>): void {
    if (event.type === 'ERROR') {
      const { code = 500, message = 'watch ended by the server' } = event.object
      throw new ApiError({ code, reason: '', message, request: `WATCH ${this.#options.path}` })
    }
    const version = event.object.metadata.resourceVersion
    if (event.type === 'DELETED') {
      const known = this.#objects.get(keyOf(event.object))
      if (known !== undefined && !isOlder(version, known.metadata.resourceVersion)) this.#remove(keyOf(event.object))
    } else if (event.type !== 'BOOKMARK') {
      const known = this.#objects.get(keyOf(event.object))
      if (known === undefined || isOlder(known.metadata.resourceVersion, version))
        this.#change(this.#trim(event.object))
    }
    this.#version = version ?? this.#version
  }

  #trim(object: T): T {
    return this.#options.trim?.(object, this.#objects.get(keyOf(object))) ?? object
  }

  #change(object: T): void {
    const key = keyOf(object)
    const before = this.#objects.get(key)
    if (before !== undefined && before.metadata.uid !== object.metadata.uid) {
      this.#remove(key)
      return this.#change(object)
    }
    this.#objects.set(key, object)
    this.#options.onChange(object, before)
  }

  #remove(key: string): void {
    const before = this.#objects.get(key)
    this.#objects.delete(key)
    if (before !== undefined) this.#options.onChange(undefined, before)
  }
}

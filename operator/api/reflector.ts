// A copy of one collection of the API server, kept up to date by a paged LIST and a WATCH. Whatever goes wrong, it goes
// on: with the last version where that is possible, with a new LIST where the server has forgotten it (410).

import { setTimeout as sleep } from 'node:timers/promises'
import { isOlder, type KubeObject, keyOf } from '../objects/wire.ts'
import { ApiError, isCode, messageOf } from './errors.ts'
import type { Kube, Query } from './kube.ts'

export type ReflectorOptions<T> = {
  kube: Pick<Kube, 'call' | 'lines'>
  path: string
  labelSelector?: string
  /** Cuts an object down to what is read, before it is kept; `before` is what is kept of it until now. */
  trim?: (object: T, before: T | undefined) => T
  /** `now` is undefined when the object is gone; an object made again under its name first goes, then comes. */
  onChange: (now: T | undefined, before: T | undefined) => void
  onProblem?: (problem: string) => void
  /** A watch silent for longer is taken for dead: bookmarks come once a minute. */
  idleMilliseconds?: number
  pageSize?: number
}

type List<T> = { metadata: { resourceVersion?: string; continue?: string }; items?: T[] }
type WatchEvent<T> = { type: string; object: T & { code?: number; message?: string } }

const FIRST_BACKOFF = 100
const LONGEST_BACKOFF = 30_000
/**
 * A watch that lives for less and brought nothing counts as a failure, so that a server that ends each at once is not asked at full speed. One that did
 * bring something was cut off as too slow in a burst: it goes on at once, or it would fall back further.
 */
const SHORTEST_WATCH = 1000

export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions<T>
  readonly #objects = new Map<string, T>()
  /** How far into the server's history this copy is. */
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
   * Takes over the server's answer to our own write before the watch brings it, so that the next decision sees it.
   * An answer that the watch has already passed is ignored: the object may be gone since.
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
    // What we wrote after the list was taken is not in it and is not gone either.
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
        // Spread, so that not all watches of a restarted server end together.
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

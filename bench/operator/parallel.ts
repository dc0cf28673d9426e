import { setTimeout as sleep } from 'node:timers/promises'

/** Requests that one process has under way: as many as the operator with eight gangs of four. */
const CONCURRENCY = 32

/** Starts `work` for every item in order, with CONCURRENCY items under way. */
export async function inParallel<T>(items: Iterable<T>, work: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items[Symbol.iterator]()
  const lane = async () => {
    for (let next = rest.next(); !next.done; next = rest.next()) await work(next.value)
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, lane))
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, seconds = 120): Promise<void> {
  const end = performance.now() + seconds * 1000
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited ${seconds} s for ${what}`)
    await sleep(20)
  }
}

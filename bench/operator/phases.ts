// The measurements of bench:operator for every subject: gangs that are created at once, gangs that
// fail at once, and memory.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inParallel, until } from './parallel.ts'
import type { Seen } from './pods.ts'
import type { Gang, Subject } from './subjects.ts'
import type { World } from './world.ts'

export type Burst = { podsPerSecond: number; createToLastPodMs: { p50: number; p99: number } }
/**
 * The time runs from the first failure to the last new pod and includes the back-off. Meanwhile
 * failures are recorded and old pods are deleted.
 */
export type Recovery = { podsPerSecond: number; seconds: number }

const WORKER_ERROR = 70

export const quantile = (values: readonly number[], q: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))] ?? Number.NaN

const gangs = (namespace: string, from: number, to: number, workers: number): Gang[] =>
  Array.from({ length: to - from }, (_, i) => ({ namespace, name: `job-${from + i}`, workers }))

/**
 * Sends objects for gangs as fast as they are accepted; returns the time at which each was sent.
 */
export async function send(
  { world, subject }: { world: World; subject: Subject },
  { namespace, from = 0, to, workers }: { namespace: string; from?: number; to: number; workers: number },
): Promise<Map<string, number>> {
  const sent = new Map<string, number>()
  await inParallel(gangs(namespace, from, to, workers), async gang => {
    sent.set(gang.name, performance.now())
    await world.kube.call({ method: 'POST', ...subject.request(gang) })
  })
  return sent
}

/** Sends objects for gangs `from` to `to` at once; ends when the last pod exists. */
export async function burst(
  { world, subject }: { world: World; subject: Subject },
  { namespace, from = 0, to, workers }: { namespace: string; from?: number; to: number; workers: number },
): Promise<Burst> {
  const start = performance.now()
  const sending = send({ world, subject }, { namespace, from, to, workers })
  const pods = await world.pods.count(namespace, to * workers)
  const sent = await sending
  const last = new Map<string, number>()
  for (const { pod, at } of pods) {
    const name = subject.gangOf(pod)
    if (sent.has(name)) last.set(name, Math.max(at, last.get(name) ?? 0))
  }
  const delays = [...last].map(([name, at]) => at - (sent.get(name) ?? Number.NaN))
  const seconds = (Math.max(...last.values()) - start) / 1000
  const createToLastPodMs = { p50: quantile(delays, 0.5), p99: quantile(delays, 0.99) }
  return { podsPerSecond: ((to - from) * workers) / seconds, createToLastPodMs }
}

/** Lets one worker of `failing` gangs fail at once; ends when each gang has all its new pods. */
export async function recovery(
  { world, subject }: { world: World; subject: Subject },
  { namespace, failing, workers }: { namespace: string; failing: number; workers: number },
): Promise<Recovery> {
  const before = world.pods.in(namespace)
  const old = new Set(before.map(({ pod }) => pod.metadata.uid))
  const victims = new Map<string, Seen>()
  for (const seen of before) if (victims.size < failing) victims.set(subject.gangOf(seen.pod), seen)
  const start = performance.now()
  await inParallel([...victims.values()], async seen => world.pods.end(seen, WORKER_ERROR))
  const fresh = () => world.pods.in(namespace).filter(({ pod }) => !old.has(pod.metadata.uid))
  await until(`${failing} gangs to be made anew`, () => fresh().length === failing * workers)
  const seconds = (Math.max(...fresh().map(({ at }) => at)) - start) / 1000
  return { podsPerSecond: (failing * workers) / seconds, seconds }
}

/** The pods per second of the bare client loop. */
export async function loop(
  world: World,
  { namespace, jobs, workers, mode }: { namespace: string; jobs: number; workers: number; mode: 'create' | 'replace' },
): Promise<number> {
  const old = new Set(world.pods.in(namespace).map(({ pod }) => pod.metadata.uid))
  const path = join(import.meta.dirname, 'loop.ts')
  const child = fork(path, [world.kubeconfig, namespace, String(jobs), String(workers), mode])
  const ended = once(child, 'exit')
  const [began]: unknown[] = await once(child, 'message')
  const [code]: unknown[] = await ended
  if (code !== 0) throw new Error(`the loop ended with ${String(code)}`)
  const fresh = () => world.pods.in(namespace).filter(({ pod }) => !old.has(pod.metadata.uid))
  await until('the last pod to be seen', () => fresh().length === jobs * workers)
  const last = performance.timeOrigin + Math.max(...fresh().map(({ at }) => at))
  return (jobs * workers) / ((last - Number(began)) / 1000)
}

/**
 * Resident MiB with each of `sizes` running gangs, which are added step by step, `settle` seconds
 * after the last pod exists.
 */
export async function memory(
  { world, subject }: { world: World; subject: Subject },
  {
    namespace,
    sizes,
    workers,
    settle,
  }: { namespace: string; sizes: readonly number[]; workers: number; settle: number },
): Promise<Record<string, number>> {
  const result: Record<string, number> = {}
  let there = 0
  for (const size of sizes) {
    if (size > there) await burst({ world, subject }, { namespace, from: there, to: size, workers })
    there = size
    await sleep(settle * 1000)
    result[size] = Math.round(subject.mebibytes())
  }
  return result
}

export async function clear({ world, subject }: { world: World; subject: Subject }, namespace: string): Promise<void> {
  await world.clear(...subject.leftovers(namespace))
  await world.pods.count(namespace, 0)
}

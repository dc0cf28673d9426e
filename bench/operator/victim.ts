// The life of one job from its creation to Complete, with the time that the operator takes for each
// part. Times are those at which a watch of this process brings the change.

import { API_VERSION } from '../../crds/contract.ts'
import { Reflector } from '../../operator/api/reflector.ts'
import { type Job, type KubeObject, pathOf } from '../../operator/objects/wire.ts'
import { readStatus } from '../../operator/plan/view.ts'
import { until } from './parallel.ts'
import { lastWords } from './rest.ts'
import type { Gang, Operator } from './subjects.ts'
import type { World } from './world.ts'

/** Each in milliseconds, from what the operator waits for to what it does then. */
export const PHASES = ['pods', 'starting', 'running', 'progress', 'complete', 'events'] as const
export type Phase = (typeof PHASES)[number]
export type Life = Record<Phase, number>

type Event = KubeObject & { reason?: string; regarding?: { name?: string } }

/** The event that follows each state. */
const REASONS = { Starting: 'WorkersStarting', Running: 'AllWorkersReady', Complete: 'AllWorkersSucceeded' }

/** When what happens to the jobs of one namespace was first seen. */
export class Watched {
  readonly #stop = new AbortController()
  readonly #seen = new Map<string, number>()

  constructor(world: World, namespace: string) {
    const { kube } = world
    const jobs = new Reflector<Job>({ kube, path: pathOf('ScMoEJob', namespace), onChange: job => this.#seeJob(job) })
    const events = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`
    const told = new Reflector<Event>({ kube, path: events, onChange: event => this.#seeEvent(event) })
    for (const reflector of [jobs, told]) void reflector.run(this.#stop.signal)
  }

  stop(): void {
    this.#stop.abort()
  }

  async time(job: string, what: string): Promise<number> {
    const key = `${job} ${what}`
    await until(`${key} (${API_VERSION})`, () => this.#seen.has(key), 300)
    return this.#seen.get(key) ?? Number.NaN
  }

  /** When this was seen, if it was. */
  seen(job: string, what: string): number | undefined {
    return this.#seen.get(`${job} ${what}`)
  }

  #seeJob(job: Job | undefined): void {
    if (job === undefined) return
    const { state = '', progress } = readStatus(job)
    this.#see(`${job.metadata.name} ${state}`)
    if (progress !== undefined) this.#see(`${job.metadata.name} progress`)
  }

  #seeEvent(event: Event | undefined): void {
    if (event !== undefined) this.#see(`${event.regarding?.name} ${event.reason}`)
  }

  #see(key: string): void {
    if (!this.#seen.has(key)) this.#seen.set(key, performance.now())
  }
}

export async function lifeOf(
  { world, subject, watched }: { world: World; subject: Operator; watched: Watched },
  gang: Gang,
): Promise<Life> {
  const { namespace, name, workers } = gang
  const mine = () => world.pods.in(namespace).filter(({ pod }) => subject.gangOf(pod) === name)
  const sent = performance.now()
  await world.kube.call({ method: 'POST', ...subject.request(gang) })
  await until(
    `the pods of ${name} to be ready`,
    () => mine().filter(({ readyAt }) => readyAt !== undefined).length === workers,
    300,
  )
  const pods = mine()
  const made = Math.max(...pods.map(({ at }) => at))
  const ready = Math.max(...pods.map(({ readyAt = Number.NaN }) => readyAt))
  const running = await watched.time(name, 'Running')
  // A gang that is ready before its first status is written has never been Starting.
  const states = { Starting: watched.seen(name, 'Starting') ?? running, Running: running }
  const progress = await watched.time(name, 'progress')
  await Promise.all(pods.map(async seen => world.pods.end(seen, 0, lastWords(seen.pod))))
  const ended = performance.now()
  const complete = await watched.time(name, 'Complete')
  const events: number[] = []
  for (const [state, at] of Object.entries({ ...states, Complete: complete }))
    if (watched.seen(name, state) !== undefined)
      events.push((await watched.time(name, REASONS[state as keyof typeof REASONS])) - at)
  // Two watches may bring two changes in the other order.
  const least = (milliseconds: number) => Math.max(1, milliseconds)
  return {
    pods: least(made - sent),
    starting: least(states.Starting - made),
    running: least(states.Running - ready),
    progress: least(progress - states.Running),
    complete: least(complete - ended),
    events: least(Math.max(...events)),
  }
}

// Jobs for which the API server refuses to create an object, and when each is tried again. They are
// tried less and less often. A job is tried soon when another one of its namespace gave something
// back or got what it asked for, because quotas and admission are not watched.

import { same } from './objects/json.ts'
import { type Job, keyOf, namespaceOf } from './objects/wire.ts'

type Refused = {
  /** The version of the job that was refused. Another version is another question. */
  job: Job
  failures: number
  /** By performance.now. Nothing is created before. */
  until: number
}

const FIRST_MILLISECONDS = 15_000
/** A refusal that may pass by itself is tried again sooner. */
const FIRST_PASSING_MILLISECONDS = 1000
const LONGEST_MILLISECONDS = 120_000
/** The refused jobs of one namespace are together tried once in this time. */
const APART_MILLISECONDS = 1000
/** A gang gives its pods back one by one, and after this time most of them are gone. */
const SOON_MILLISECONDS = 1000
/** Jobs that are tried when there may be room. The next ones follow when these get it. */
const AT_A_TIME = 2
/** Time for an answer to a create, for a job that was not refused before. It doubles each time. */
const FIRST_ANSWER_MILLISECONDS = 10_000
/** An admission webhook may take 30 s. */
const LAST_ANSWER_MILLISECONDS = 35_000

export class Refusals {
  /** By namespace and key. The job that was tried longest ago comes first. */
  readonly #namespaces = new Map<string, Map<string, Refused>>()

  /** Returns the milliseconds after which the job is tried again. */
  refused(job: Job, mayPass: boolean): number {
    const { namespace = '' } = job.metadata
    const jobs = this.#namespaces.get(namespace) ?? new Map<string, Refused>()
    const known = jobs.get(keyOf(job))
    const failures = known !== undefined && isSame(known.job, job) ? known.failures + 1 : 1
    jobs.delete(keyOf(job))
    const first = mayPass ? FIRST_PASSING_MILLISECONDS : FIRST_MILLISECONDS
    const own = Math.min(first * 2 ** (failures - 1), LONGEST_MILLISECONDS)
    const delay = Math.max(own, jobs.size * APART_MILLISECONDS) * (1 + Math.random() / 4)
    jobs.set(keyOf(job), { job, failures, until: performance.now() + delay })
    this.#namespaces.set(namespace, jobs)
    return delay
  }

  /** Milliseconds for which nothing may be created for this version of the job. */
  left(job: Job): number {
    const known = this.#of(job)
    return known === undefined || !isSame(known.job, job) ? 0 : Math.max(0, known.until - performance.now())
  }

  /** Whether a job of this namespace was refused, and has not got since what it asked for. */
  isRefusing(namespace: string): boolean {
    return this.#namespaces.has(namespace)
  }

  /** Milliseconds to wait for the answer to a create. */
  patience(job: Job): number {
    return Math.min(FIRST_ANSWER_MILLISECONDS * 2 ** (this.#of(job)?.failures ?? 0), LAST_ANSWER_MILLISECONDS)
  }

  /** The job got what it asked for. Returns the keys of jobs to try now. */
  accepted(job: Job): string[] {
    const { namespace = '' } = job.metadata
    this.forget(keyOf(job))
    return this.#hasten(namespace, 0)
  }

  /** Something was given back. Returns the keys of jobs to try, and after how many milliseconds. */
  room(namespace: string): { keys: string[]; milliseconds: number } {
    return { keys: this.#hasten(namespace, SOON_MILLISECONDS), milliseconds: SOON_MILLISECONDS }
  }

  forget(key: string): void {
    const namespace = namespaceOf(key)
    const jobs = this.#namespaces.get(namespace)
    jobs?.delete(key)
    if (jobs?.size === 0) this.#namespaces.delete(namespace)
  }

  #of(job: Job): Refused | undefined {
    return this.#namespaces.get(job.metadata.namespace ?? '')?.get(keyOf(job))
  }

  #hasten(namespace: string, milliseconds: number): string[] {
    const at = performance.now() + milliseconds
    const jobs = [...(this.#namespaces.get(namespace) ?? [])].slice(0, AT_A_TIME)
    for (const [, refused] of jobs) refused.until = Math.min(refused.until, at)
    return jobs.map(([key]) => key)
  }
}

/** Whether nobody has edited the job in between. Its status may have changed. */
function isSame(a: Job, b: Job): boolean {
  const [before, now] = [a.metadata, b.metadata]
  return (
    before.uid === now.uid &&
    before.generation === now.generation &&
    same(before.labels, now.labels) &&
    same(before.annotations, now.annotations)
  )
}

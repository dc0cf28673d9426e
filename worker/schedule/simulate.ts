// Both queues of every rank, first in, first out, with waits between them. A collective starts on a rank when that rank reaches it and transfers
// once the last member of its group is there. Compute goes on at the rate 1 - contention while its rank transfers.

import { collectiveOf } from '../program/effects.ts'
import type { Op } from '../program/program.ts'
import type { Times } from './types.ts'

/** What ops take, whatever their order. */
export interface Costs {
  ops: readonly Op[]
  /** Microseconds by rank, then op: of compute ops alone, of collectives from the last member's arrival. */
  times: readonly Times[]
  contention: number
}

/** Compute ops in a fixed order; the order of communication is left open. */
export interface Course extends Costs {
  compute: readonly number[]
  /** Per comm op the compute position it needs last (-1: none). */
  computeNeeded: Int32Array
  /** Positions at which compute waits or is watched, ascending, and the comm ops it needs there. */
  stops: readonly { position: number; needs: readonly number[] }[]
  /** By rank: microseconds of compute before each position, and of all. */
  work: readonly Float64Array[]
  /** Per op, where it is a collective: the number of each rank's group. */
  groups: readonly (Int32Array | undefined)[]
}

/** Called in the order of each rank's clock. */
export interface Watch {
  travelled?(op: number, rank: number, span: { start: number; ready: number; end: number }): void
  /** Compute came to a stop at `reached` and went on at `started`. */
  stopped?(stop: number, rank: number, span: { reached: number; started: number }): void
}

export interface Outcome {
  /** Microseconds until the last rank is done. */
  total: number
  /** Least time by which an all-to-all ended before compute came to need it; negative where compute stood still; Infinity: none is needed. */
  slack: number
}

/** `watched`: positions that are stops even if compute needs nothing there. */
export function courseOf(
  costs: Costs,
  queues: Pick<Course, 'compute' | 'computeNeeded'> & { commNeeded: readonly (readonly number[])[] },
  watched: readonly number[] = [],
): Course {
  const { compute, computeNeeded, commNeeded } = queues
  const isWatched = new Set(watched)
  const stops = [...compute, -1]
    .map((op, position) => ({ position, needs: commNeeded[op] ?? [] }))
    .filter(({ position, needs }) => needs.length > 0 || isWatched.has(position))
  const work = costs.times.map(times => {
    const sums = new Float64Array(compute.length + 1)
    for (const [position, op] of compute.entries()) sums[position + 1] = (sums[position] ?? 0) + (times[op] ?? 0)
    return sums
  })
  return { ...costs, compute, computeNeeded, stops, work, groups: groupsOf(costs) }
}

/** Of EP groups, ranks in a row; of their replicas (edp), ranks with the same experts. */
function groupsOf({ ops, times }: Costs): (Int32Array | undefined)[] {
  const ranks = times.length
  const size = Number(
    ops.find(op => op.attrs['expertParallelSize'] !== undefined)?.attrs['expertParallelSize'] ?? ranks,
  )
  const world = new Int32Array(ranks)
  const ep = world.map((_, rank) => Math.floor(rank / size))
  const edp = world.map((_, rank) => rank % size)
  return ops.map(op => {
    if (op.queue === 'compute') return undefined
    if (collectiveOf(op) === 'exchange' || op.attrs['group'] === 'ep') return ep
    return op.attrs['group'] === 'edp' ? edp : world
  })
}

export function simulate(course: Course, comm: readonly number[], watch: Watch = {}): Outcome {
  const ranks = course.times.map((_, rank) => new RankClock(course, rank, watch))
  const ready = new Float64Array(ranks.length)
  for (const op of comm) {
    const group = course.groups[op]
    const needed = course.computeNeeded[op] ?? -1
    ready.fill(0)
    for (const [rank, clock] of ranks.entries()) {
      const at = group?.[rank] ?? 0
      ready[at] = Math.max(ready[at] ?? 0, clock.reach(needed))
    }
    for (const [rank, clock] of ranks.entries()) clock.transfer(op, ready[group?.[rank] ?? 0] ?? 0)
  }
  const outcome = { total: 0, slack: Number.POSITIVE_INFINITY }
  for (const clock of ranks) {
    outcome.total = Math.max(outcome.total, clock.finish())
    outcome.slack = Math.min(outcome.slack, clock.slack)
  }
  return outcome
}

class RankClock {
  slack = Number.POSITIVE_INFINITY
  readonly #course: Course
  readonly #rank: number
  readonly #watch: Watch
  readonly #work: Float64Array
  readonly #times: Times | undefined
  readonly #rate: number
  /** When the ops of both queues so far have ended. */
  #compute = 0
  #comm = 0
  /** When this rank came to the next collective. */
  #reached = 0
  /** Compute positions that have ended, and their work. */
  #position = 0
  #done = 0
  #stop = 0
  /** Of collectives so far, by op. */
  readonly #ends: Float64Array
  /** Transfers in order, and the first that compute has not passed. */
  readonly #transfers: { start: number; end: number }[] = []
  #passed = 0

  constructor(course: Course, rank: number, watch: Watch) {
    this.#course = course
    this.#rank = rank
    this.#watch = watch
    this.#work = course.work[rank] ?? new Float64Array()
    this.#times = course.times[rank]
    this.#rate = 1 - course.contention
    this.#ends = new Float64Array(course.ops.length)
  }

  /** When this rank comes to a collective that needs compute up to `position`. */
  reach(position: number): number {
    // What an earlier collective waited for has ended before that collective.
    if (position >= this.#position) {
      this.#advance(position + 1)
      this.#comm = Math.max(this.#comm, this.#compute)
    }
    this.#reached = this.#comm
    return this.#reached
  }

  transfer(op: number, ready: number): void {
    const end = ready + (this.#times?.[op] ?? 0)
    this.#watch.travelled?.(op, this.#rank, { start: this.#reached, ready, end })
    if (this.#rate < 1) this.#transfers.push({ start: ready, end })
    this.#comm = end
    this.#ends[op] = end
  }

  finish(): number {
    this.#advance(this.#work.length)
    return Math.max(this.#compute, this.#comm)
  }

  /** Ends all compute before `position`. */
  #advance(position: number): void {
    const { stops } = this.#course
    for (let stop = stops[this.#stop]; stop && stop.position < position; stop = stops[++this.#stop]) {
      this.#run(stop.position)
      const reached = this.#compute
      for (const op of stop.needs) this.#waitFor(op, reached)
      this.#watch.stopped?.(this.#stop, this.#rank, { reached, started: this.#compute })
    }
    this.#run(Math.min(position, this.#work.length - 1))
    this.#position = position
  }

  #waitFor(op: number, reached: number): void {
    const end = this.#ends[op] ?? 0
    if (collectiveOf(this.#course.ops[op]) === 'exchange') this.slack = Math.min(this.slack, reached - end)
    this.#compute = Math.max(this.#compute, end)
  }

  #run(position: number): void {
    const done = this.#work[position] ?? this.#done
    this.#compute = this.#elapse(this.#compute, done - this.#done)
    this.#done = done
  }

  /** When so much work ends that starts at `time`. */
  #elapse(time: number, work: number): number {
    let [now, left] = [time, work]
    for (let next = this.#transfers[this.#passed]; next && left > 0; next = this.#transfers[++this.#passed]) {
      if (next.end <= now) continue
      if (now + left <= next.start) break
      if (next.start > now) {
        left -= next.start - now
        now = next.start
      }
      const most = (next.end - now) * this.#rate
      if (left <= most) return now + left / this.#rate
      left -= most
      now = next.end
    }
    return now + left
  }
}

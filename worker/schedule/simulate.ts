// Simulates both queues of every rank. Each queue is first in, first out, with waits between the
// two. A collective starts on a rank when that rank reaches it, and transfers data once the last
// member of its group has come. Compute goes on at the rate 1 - contention while its rank transfers
// data.

import { collectiveOf } from '../program/effects.ts'
import type { Op } from '../program/program.ts'
import type { Times } from './types.ts'

/** The times of ops, which do not depend on their order. */
export interface Costs {
  ops: readonly Op[]
  /**
   * Microseconds by rank, then op: for a compute op without contention, for a collective from the
   * arrival of the last member.
   */
  times: readonly Times[]
  /** The share of its speed that compute loses while its rank transfers data, 0 to 1. */
  contention: number
}

/** Compute ops in a fixed order, while the order of communication is still open. */
export interface Course extends Costs {
  compute: readonly number[]
  /** For each comm op, the last position in `compute` that it needs; -1 if none. */
  computeNeeded: Int32Array
  /**
   * The positions at which compute waits or is watched, in ascending order, with the comm ops that
   * it needs there.
   */
  stops: readonly { position: number; needs: readonly number[] }[]
  /**
   * For each rank, the microseconds of compute before each position; the last entry is the total.
   */
  work: readonly Float64Array[]
  /** For each collective, the number of the group of each rank. */
  groups: readonly (Int32Array | undefined)[]
}

/** Observes a simulation. For each rank, calls come in the order of time. */
export interface Watch {
  travelled?(op: number, rank: number, span: { start: number; ready: number; end: number }): void
  /** Compute came to a stop at the time `reached` and went on at `started`. */
  stopped?(stop: number, rank: number, span: { reached: number; started: number }): void
}

export interface Outcome {
  /** Microseconds until the last rank is done. */
  total: number
  /**
   * The least time by which an all-to-all ended before compute needed it; negative if compute stood
   * still; Infinity if no all-to-all is needed.
   */
  slack: number
}

/** Positions in `watched` are stops even if compute needs nothing there. */
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

/** An ep group has consecutive ranks; an edp group has the ranks with the same experts. */
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
  /** The time at which the compute ops so far have ended. */
  #compute = 0
  /** The time at which the collectives so far have ended. */
  #comm = 0
  /** The time at which this rank came to the next collective. */
  #reached = 0
  /** The number of compute ops that have ended. */
  #position = 0
  /** The work of the compute ops that have ended. */
  #done = 0
  /** Index of the next stop. */
  #stop = 0
  /** The end of each collective so far, by op. */
  readonly #ends: Float64Array
  /** Transfers in ascending order. */
  readonly #transfers: { start: number; end: number }[] = []
  /** Index of the first transfer that compute has not passed. */
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

  /** The time at which this rank comes to a collective that needs compute up to `position`. */
  reach(position: number): number {
    // If an earlier collective already needed this position, there is nothing more to wait for.
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

  /** Lets all compute before `position` end. */
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

  /** The time at which `work` ends if it starts at `time`. */
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

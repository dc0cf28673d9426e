// Rules that every schedule keeps, tested with random models, ranks, programs, choices and times.

import * as fc from 'fast-check'
import { expect, describe as group, it } from 'vitest'
import { emitEvaluate, emitGradients, emitMicroBatch, emitTrain } from '../../../worker/emit/emit.ts'
import type { Op } from '../../../worker/program/program.ts'
import { choices, makespan, schedule } from '../../../worker/schedule/schedule.ts'
import { type Access, accesses, emittedLabel, meet, type Placed, piecesOf } from '../../support/accesses.ts'
import { happensBefore, runTogether } from '../../support/happens-before.ts'
import { choiceOf, configOf, job, measured, profileOf, wish } from '../../support/program-arbitraries.ts'

const PROGRAMS: Record<string, typeof emitTrain> = {
  train: emitTrain,
  evaluate: emitEvaluate,
  gradients: emitGradients,
  accumulate: (config, rank) => emitMicroBatch(config, rank, false),
}
const planned = fc.record({
  model: job,
  program: fc.constantFrom('train', 'train', 'train', 'evaluate', 'gradients', 'accumulate'),
  rank: fc.nat(3),
  wish,
  shape: measured,
  timed: fc.boolean(),
})
type Planned = typeof planned extends fc.Arbitrary<infer T> ? T : never
function plan({ model, program, rank, wish: wanted, shape, timed }: Planned) {
  const config = configOf(model)
  const emitted = (PROGRAMS[program] ?? emitTrain)(config, rank % config.worldSize)
  const profile = profileOf(emitted, config.worldSize, shape)
  const choice = choiceOf(wanted, choices(emitted, { strategy: 'Auto' }))
  return { emitted, profile, choice, scheduled: schedule(emitted, choice, timed ? profile : undefined) }
}
const picks = fc.array(fc.nat(100), { minLength: 1, maxLength: 50 })

const isExchange = (op: Op) => op.op === 'all_to_all' || op.op === 'all_gather_counts'
const labels = (ops: readonly Op[]) => ops.map(op => op.label)

// Each test was seen failing with the defect that the comment before it names.
group('every schedule', () => {
  // An order of exchanges turned round on odd ranks; compute that waits for the exchange after the
  // one it needs.
  it('runs to its end on all ranks when queues go first in, first out, however they interleave; all ranks have one order', () => {
    fc.assert(
      fc.property(job, wish, measured, picks, (model, wanted, shape, list) => {
        const config = configOf(model)
        const ranks = Array.from({ length: config.worldSize }, (_, rank) => {
          const emitted = emitTrain(config, rank)
          const choice = choiceOf(wanted, choices(emitted, { strategy: 'Auto' }))
          return schedule(emitted, choice, profileOf(emitted, config.worldSize, shape))
        })
        expect(runTogether(ranks, list)).toHaveLength(ranks.reduce((sum, { ops }) => sum + ops.length, 0))
        for (const { ops } of ranks) expect(labels(ops)).toEqual(labels(ranks[0]?.ops ?? []))
      }),
    )
  })

  // A split that stops before the last chunk.
  it('has every op once, or each of its chunks once', () => {
    fc.assert(
      fc.property(planned, input => {
        const { emitted, scheduled } = plan(input)
        const shares = [...piecesOf(scheduled)].map(([label, pieces]) => {
          const chunks = pieces.map(({ op }) => [op.attrs['chunk'] ?? 0, op.attrs['chunks'] ?? 1])
          expect(chunks).toEqual(pieces.map((_, i) => [i, pieces.length]))
          return label
        })
        expect(shares.toSorted()).toEqual(labels(emitted.ops).toSorted())
      }),
    )
  })

  // Waits for every producer instead of the last.
  it('waits only for earlier ops of the other queue, one at most, and never for what is already known to have ended', () => {
    fc.assert(
      fc.property(planned, input => {
        const { scheduled } = plan(input)
        const known = { compute: -1, comm: -1 }
        for (const [at, { queue, waits }] of scheduled.ops.entries()) {
          expect(waits.length).toBeLessThanOrEqual(1)
          for (const wait of waits) {
            expect(wait).toBeLessThan(at)
            expect(wait).toBeGreaterThan(known[queue])
            expect(scheduled.ops[wait]?.queue).not.toBe(queue)
            known[queue] = wait
          }
        }
      }),
    )
  })

  // An op on all rows that follows the first chunk's writer alone; experts placed before what the
  // window needs.
  it('keeps every two accesses to the same rows, of which one writes, in the emitted order: the numbers cannot differ', () => {
    fc.assert(
      fc.property(planned, input => {
        const { emitted, scheduled } = plan(input)
        const before = happensBefore(scheduled)
        const pieces = piecesOf(scheduled)
        const known = new Map<string, (Placed & { access: Access })[]>()
        for (const { label } of emitted.ops) {
          const own = (pieces.get(label) ?? []).flatMap(({ op, at }) =>
            accesses(op).map(access => ({ op, at, access })),
          )
          for (const { at, access } of own)
            for (const other of known.get(access.name) ?? [])
              if (meet(other.access, access) && (other.access.writes || access.writes) && !before(other.at, at))
                expect.fail(`${other.op.label} may run after ${label}, which touches ${access.name} too`)
          for (const entry of own) known.set(entry.access.name, [...(known.get(entry.access.name) ?? []), entry])
        }
      }),
      { numRuns: 60 },
    )
  })

  // Combines that do not wait for the experts of their chunk.
  it('writes every row of a transient buffer before it is read', () => {
    fc.assert(
      fc.property(planned, input => {
        const { scheduled } = plan(input)
        const before = happensBefore(scheduled)
        const transient = new Set(
          scheduled.buffers.filter(({ arena }) => arena === 'transient').map(({ name }) => name),
        )
        const touched = scheduled.ops.flatMap((op, at) => accesses(op).map(access => ({ op, at, access })))
        const writers = Map.groupBy(
          touched.filter(({ access }) => access.writes),
          ({ access }) => access.name,
        )
        for (const { op, at, access } of touched) {
          if (!access.reads || !transient.has(access.name)) continue
          const earlier = (writers.get(access.name) ?? []).filter(other => other.at !== at && before(other.at, at))
          const chunks = Math.max(1, ...earlier.map(other => Number(other.op.attrs['chunks'] ?? 1)))
          const wanted = access.chunk === undefined ? Array.from({ length: chunks }, (_, i) => i) : [access.chunk]
          const unwritten = wanted.filter(chunk => !earlier.some(other => meet(other.access, { ...access, chunk })))
          expect(unwritten, `${op.label} reads ${access.name}`).toEqual([])
        }
      }),
      { numRuns: 60 },
    )
  })

  // A transfer that starts before its producer has ended: the queue's own clock alone.
  it('is predicted to take no less than either queue alone, or than the longest chain of data from op to op', () => {
    fc.assert(
      fc.property(planned, input => {
        const { emitted, scheduled, profile } = plan(input)
        const { total } = makespan(scheduled, emitted, profile)
        for (const times of profile.times) {
          const byLabel = new Map(emitted.ops.map((op, at) => [op.label, times[at] ?? 0]))
          const timeOf = (op: Op) => (byLabel.get(emittedLabel(op)) ?? 0) / Number(op.attrs['chunks'] ?? 1)
          for (const queue of ['compute', 'comm'])
            expect(total).toBeGreaterThanOrEqual(
              scheduled.ops.reduce((sum, op) => sum + (op.queue === queue ? timeOf(op) : 0), 0) - 1e-6,
            )
          const written = new Map<string, { access: Access; end: number }[]>()
          let longest = 0
          for (const op of scheduled.ops) {
            const own = accesses(op)
            const producers = own
              .filter(({ reads }) => reads)
              .flatMap(access => (written.get(access.name) ?? []).filter(other => meet(other.access, access)))
            const end = Math.max(0, ...producers.map(other => other.end)) + timeOf(op)
            for (const access of own.filter(({ writes }) => writes))
              written.set(access.name, [...(written.get(access.name) ?? []), { access, end }])
            longest = Math.max(longest, end)
          }
          expect(total).toBeGreaterThanOrEqual(longest - 1e-6)
        }
      }),
      { numRuns: 60 },
    )
  })

  // Sums that may go one gap earlier than the first they are ready for.
  it('puts no sum over ranks ahead of an exchange that is ready no later', () => {
    fc.assert(
      fc.property(planned, input => {
        const { scheduled, choice } = plan(input)
        fc.pre(choice.strategy !== 'Sequential')
        const ready = new Map<Op, number>()
        const writers: { access: Access; at: number }[] = []
        for (const [at, op] of scheduled.ops.entries()) {
          const own = accesses(op)
          const producers = writers.filter(other => own.some(access => access.reads && meet(other.access, access)))
          if (op.queue === 'comm') ready.set(op, Math.max(-1, ...producers.map(other => other.at)))
          // A collective's result counts as ready for the next collective as soon as the first one
          // is.
          const from = op.queue === 'comm' ? (ready.get(op) ?? -1) : at
          for (const access of own.filter(({ writes }) => writes)) writers.push({ access, at: from })
        }
        const comm = scheduled.ops.filter(op => op.queue === 'comm')
        for (const [at, op] of comm.entries()) {
          if (isExchange(op)) continue
          const later = comm
            .slice(at + 1)
            .filter(other => isExchange(other) && (ready.get(other) ?? 0) <= (ready.get(op) ?? 0))
          expect(labels(later), op.label).toEqual([])
        }
      }),
      { numRuns: 100 },
    )
  })
})

group('sequential', () => {
  // No wait of the op after an exchange.
  it('never computes while an all-to-all or its counts travel', () => {
    fc.assert(
      fc.property(job, measured, (model, shape) => {
        const config = configOf(model)
        const emitted = emitTrain(config, 0)
        const profile = profileOf(emitted, config.worldSize, shape)
        const scheduled = schedule(emitted, { strategy: 'Sequential' }, profile)
        const { start, end } = makespan(scheduled, emitted, profile)
        const spans = (wanted: (op: Op) => boolean) =>
          scheduled.ops.flatMap((op, at) => (wanted(op) ? [{ start: start[at] ?? 0, end: end[at] ?? 0 }] : []))
        const computing = spans(op => op.queue === 'compute')
        for (const exchange of spans(isExchange))
          for (const compute of computing)
            expect(Math.min(exchange.end, compute.end) - Math.max(exchange.start, compute.start)).toBeLessThanOrEqual(0)
      }),
      { numRuns: 40 },
    )
  })
})

// Tests of the trace of a step, made from predicted spans. tests/native/worker/trace.test.ts tests
// that of a real run.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { emitTrain } from '../../../worker/emit/emit.ts'
import type { Scheduled } from '../../../worker/program/program.ts'
import { chromeTrace } from '../../../worker/report/trace.ts'
import { choices, makespan, schedule } from '../../../worker/schedule/schedule.ts'
import { accesses, meet } from '../../support/accesses.ts'
import { choiceOf, configOf, job, type Measured, measured, profileOf, wish } from '../../support/program-arbitraries.ts'

const RANK = 3
const START = 1_700_000_000_000_000
const OFFSETS = [0, 1e7]
/** Spans in which no two ops of a queue run at once, and every op takes time. */
const EVEN: Measured = { pattern: [100], skew: 0, contention: 0, latency: 0 }

const at = { pid: z.literal(RANK), tid: z.int(), ts: z.number().min(0) }
const Slice = z.object({ ph: z.literal('X'), name: z.string(), cat: z.string(), dur: z.number().min(0), ...at })
const Arrow = z.object({ ph: z.literal(['s', 'f']), bp: z.literal('e').optional(), id: z.string(), ...at })
const Name = z.object({
  ph: z.literal('M'),
  name: z.string(),
  pid: z.literal(RANK),
  tid: z.int().optional(),
  args: z.object({ name: z.string().optional(), sort_index: z.int().optional() }),
})
const Trace = z.object({
  displayTimeUnit: z.literal('ms'),
  otherData: z.object({ startMicroseconds: z.number() }),
  traceEvents: z.array(z.discriminatedUnion('ph', [Slice, Arrow, Name])),
})
type Slice = z.infer<typeof Slice>
type Arrow = z.infer<typeof Arrow>

/** Two runs of one schedule, one after the other. */
function traceOf(shape: Parameters<typeof configOf>[0], wanted: number, time: Measured) {
  const config = configOf(shape)
  const emitted = emitTrain(config, 0)
  const scheduled = schedule(emitted, choiceOf(wanted, choices(emitted, { strategy: 'Auto' })))
  const spans = makespan(scheduled, emitted, profileOf(emitted, config.worldSize, time))
  const runs = OFFSETS.map(offset => ({ ops: scheduled.ops, spans, offset }))
  const { traceEvents, otherData } = Trace.parse(
    JSON.parse(chromeTrace({ rank: RANK, startMicroseconds: START, runs })),
  )
  const slices = traceEvents.filter((event): event is Slice => event.ph === 'X')
  const arrows = traceEvents.filter((event): event is Arrow => event.ph === 's' || event.ph === 'f')
  const names = traceEvents.filter(event => event.ph === 'M')
  return { scheduled, spans, slices, flows: flowsOf(arrows), arrows, names, otherData }
}

/** The starts and ends of arrows, by id. */
const flowsOf = (arrows: readonly Arrow[]) =>
  [...Map.groupBy(arrows, ({ id }) => id).values()].map(ends => ({
    starts: ends.filter(({ ph }) => ph === 's'),
    ends: ends.filter(({ ph }) => ph === 'f'),
  }))

const threadsOf = (names: ReturnType<typeof traceOf>['names']) =>
  new Map(names.flatMap(({ name, tid, args }) => (name === 'thread_name' ? [[args.name, tid] as const] : [])))

/**
 * For every all-to-all, the last compute op before it that writes what it sends, and the first
 * compute op behind it that reads what arrives; found with the op table alone.
 */
function expectedOf({ ops }: Scheduled): [from: number, to: number][] {
  return ops.flatMap((op, comm) => {
    if (op.op !== 'all_to_all') return []
    const own = accesses(op)
    const touching = (other: number, made: 'reads' | 'writes', needed: 'reads' | 'writes') =>
      ops[other]?.queue === 'compute' &&
      accesses(ops[other]).some(a => a[made] && own.some(b => b[needed] && meet(a, b)))
    const before = ops.findLastIndex((_, other) => other < comm && touching(other, 'writes', 'reads'))
    const behind = ops.findIndex((_, other) => other > comm && touching(other, 'reads', 'writes'))
    return [before, behind].flatMap((other): [number, number][] =>
      other < 0 ? [] : [other < comm ? [other, comm] : [comm, other]],
    )
  })
}

describe('a trace', () => {
  // Seen failing with both queues in one row, with an unnamed row, and without the rank's number.
  it('names the process after its rank, and has both queues as threads', () => {
    const shape = { kind: 'ScMoE', units: 1, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 } as const
    const { names, slices, scheduled, otherData } = traceOf(shape, 1, EVEN)
    expect(names.find(({ name }) => name === 'process_name')?.args.name).toBe(`rank ${RANK}`)
    expect(otherData.startMicroseconds).toBe(START)
    const threads = threadsOf(names)
    expect([...threads.keys()]).toEqual(['compute', 'communication'])
    expect(new Set(threads.values()).size).toBe(2)
    for (const [queue, thread] of [
      ['compute', 'compute'],
      ['comm', 'communication'],
    ] as const) {
      const own = slices.filter(({ tid }) => tid === threads.get(thread)).map(({ name }) => name)
      const wanted = scheduled.ops.filter(op => op.queue === queue).map(({ label }) => label)
      expect(wanted.length).toBeGreaterThan(4)
      expect(own).toEqual(OFFSETS.flatMap(() => wanted))
    }
  })

  // Seen failing with runs that all start at 0, and with ends for durations.
  it('has every op of every run at its time', () => {
    fc.assert(
      fc.property(job, wish, measured, (shape, wanted, time) => {
        const { scheduled, spans, slices } = traceOf(shape, wanted, time)
        expect(slices.map(({ name, ts, dur }) => ({ name, ts, dur }))).toEqual(
          OFFSETS.flatMap(offset =>
            scheduled.ops.map(({ label }, i) => {
              const start = spans.start[i] ?? 0
              return { name: label, ts: offset + start, dur: (spans.end[i] ?? 0) - start }
            }),
          ),
        )
      }),
      { numRuns: 20 },
    )
  })

  // Seen failing with ids of the first op alone, of all runs alike, with no `bp`, and with arrows
  // to the last op that reads.
  it('has arrows of one start and one end each, from queue to queue and never back in time', () => {
    fc.assert(
      fc.property(job, wish, measured, (shape, wanted, time) => {
        const { flows, names, arrows } = traceOf(shape, wanted, time)
        const rows = new Set(threadsOf(names).values())
        expect(flows.reduce((sum, { starts, ends }) => sum + starts.length + ends.length, 0)).toBe(arrows.length)
        for (const { starts, ends } of flows) {
          expect([starts.length, ends.length]).toEqual([1, 1])
          expect(new Set([starts[0]?.tid, ends[0]?.tid])).toEqual(rows)
          expect(ends[0]?.bp).toBe('e')
          expect(ends[0]?.ts).toBeGreaterThanOrEqual(starts[0]?.ts ?? Number.NaN)
        }
      }),
      { numRuns: 20 },
    )
  })

  // Seen failing with no arrows in, none out, chunks taken for the whole, and arrows that start
  // after their op.
  it('has an arrow from what completes each dispatch and combine to it, and from it to what first needs its rows', () => {
    fc.assert(
      fc.property(job, wish, (shape, wanted) => {
        const { scheduled, slices, flows } = traceOf(shape, wanted, EVEN)
        const sliceAt = ({ tid, ts }: Arrow) => slices.find(s => s.tid === tid && s.ts <= ts && ts < s.ts + s.dur)
        const found = flows
          .map(({ starts, ends }) => [...starts, ...ends].map(sliceAt))
          .filter(pair => pair.some(slice => slice?.cat === 'all_to_all'))
          .map(pair => pair.map(slice => slice?.name))
        const expected = expectedOf(scheduled).map(pair => pair.map(op => scheduled.ops[op]?.label))
        expect(found).toEqual(OFFSETS.flatMap(() => expected))
        fc.pre(shape.kind !== 'Dense')
        expect(expected.some(([from]) => /combine/.test(from ?? ''))).toBe(true)
      }),
      { numRuns: 30 },
    )
  })
})

// Rules of every schedule, over random models, ranks, choices and times.

import * as fc from 'fast-check'
import { expect, describe as group, it } from 'vitest'
import { emitEvaluate, emitTrain } from '../../worker/program/emit.ts'
import type { Op, Scheduled } from '../../worker/program/program.ts'
import {
  type Choice,
  choices,
  choose,
  describe,
  estimateTimes,
  makespan,
  overlap,
  ScheduleError,
  schedule,
  type Times,
} from '../../worker/schedule/schedule.ts'
import { happensBefore, runAtRandom } from './happens-before.ts'
import { choiceOf, configOf, job, pattern, timesOf, wish } from './program-arbitraries.ts'

const emit = fc.record({ job, evaluate: fc.boolean(), rank: fc.nat(3) }).map(({ job: model, evaluate, rank }) => {
  const config = configOf(model)
  const emitted = (evaluate ? emitEvaluate : emitTrain)(config, rank % config.worldSize)
  return { model, config, emitted, evaluate }
})
const planned = fc
  .record({ emit, wish, pattern, timed: fc.boolean() })
  .map(({ emit: what, wish: wanted, pattern: list, timed }) => {
    const times = timesOf(what.emitted, list)
    const choice = choiceOf(wanted, choices(what.emitted, 'Auto'))
    const scheduled = schedule(what.emitted, choice, timed ? times : undefined)
    return { emitted: what.emitted, times, scheduled }
  })

const isExchange = (op: Op) => op.op === 'all_to_all' || op.op === 'all_gather_counts'
const labels = (ops: readonly Op[]) => ops.map(op => op.label)
const sum = (ops: readonly Op[], times: Times, queue: string) =>
  ops.reduce((total, op, index) => total + (op.queue === queue ? (times[index] ?? 0) : 0), 0)
const index = ({ ops }: Scheduled) => new Map(ops.map((op, at) => [op.label, at]))

group('every schedule', () => {
  it('runs to its end when both queues go first in, first out, however the two interleave', () => {
    fc.assert(
      fc.property(planned, fc.array(fc.boolean(), { minLength: 1, maxLength: 50 }), ({ emitted, scheduled }, picks) => {
        expect(labels(scheduled.ops).toSorted()).toEqual(labels(emitted.ops).toSorted())
        expect(runAtRandom(scheduled, picks)).toHaveLength(emitted.ops.length)
      }),
    )
  })

  it('waits only for earlier ops of the other queue, one at most, and never for what is already known to have ended', () => {
    fc.assert(
      fc.property(planned, ({ scheduled }) => {
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

  it('keeps every pair of accesses to a buffer, of which one writes, in the emitted order: the numbers cannot differ', () => {
    fc.assert(
      fc.property(planned, ({ emitted, scheduled }) => {
        const before = happensBefore(scheduled)
        const at = index(scheduled)
        const place = (op: Op) => at.get(op.label) ?? -1
        const accesses = new Map<string, { op: Op; writes: boolean }[]>()
        for (const op of emitted.ops)
          for (const name of new Set([...op.inputs, ...op.outputs])) {
            const list = accesses.get(name) ?? []
            accesses.set(name, list)
            const writes = op.outputs.includes(name)
            const unordered = list.filter(other => (other.writes || writes) && !before(place(other.op), place(op)))
            expect(unordered.map(other => `${other.op.label} / ${op.label} on ${name}`)).toEqual([])
            list.push({ op, writes })
          }
      }),
      { numRuns: 40 },
    )
  })

  it('writes every transient buffer before it is read', () => {
    fc.assert(
      fc.property(planned, ({ scheduled }) => {
        const before = happensBefore(scheduled)
        const transient = scheduled.buffers.filter(buffer => buffer.arena === 'transient')
        const unwritten = transient.flatMap(({ name }) => {
          const first = scheduled.ops.findIndex(op => op.outputs.includes(name) && !op.inputs.includes(name))
          return scheduled.ops.filter((op, at) => op.inputs.includes(name) && !before(first, at)).map(op => op.label)
        })
        expect(unwritten).toEqual([])
      }),
      { numRuns: 40 },
    )
  })

  it('has one order of collectives on all ranks', () => {
    fc.assert(
      fc.property(job, wish, pattern, (model, wanted, list) => {
        const config = configOf(model)
        const orders = Array.from({ length: config.worldSize }, (_, rank) => {
          const emitted = emitTrain(config, rank)
          const choice = choiceOf(wanted, choices(emitted, 'Auto'))
          const { ops } = schedule(emitted, choice, timesOf(emitted, list))
          return labels(ops.filter(op => op.queue === 'comm'))
        })
        for (const order of orders) expect(order).toEqual(orders[0])
      }),
    )
  })

  it('is predicted to take no less than either queue alone', () => {
    fc.assert(
      fc.property(planned, ({ emitted, scheduled, times }) => {
        const { total } = makespan(scheduled, emitted, times)
        expect(total).toBeGreaterThanOrEqual(sum(emitted.ops, times, 'compute') - 1e-6)
        expect(total).toBeGreaterThanOrEqual(sum(emitted.ops, times, 'comm') - 1e-6)
      }),
    )
  })

  it('is predicted to take no less than the longest chain of data from op to op', () => {
    fc.assert(
      fc.property(planned, ({ emitted, scheduled, times }) => {
        const written = new Map<string, number>()
        let longest = 0
        for (const [at, op] of emitted.ops.entries()) {
          const end = Math.max(0, ...op.inputs.map(name => written.get(name) ?? 0)) + (times[at] ?? 0)
          for (const name of op.outputs) written.set(name, Math.max(end, written.get(name) ?? 0))
          longest = Math.max(longest, end)
        }
        expect(makespan(scheduled, emitted, times).total).toBeGreaterThanOrEqual(longest - 1e-6)
      }),
    )
  })

  it('puts no sum of gradients ahead of an exchange that is ready no later', () => {
    fc.assert(
      fc.property(planned, ({ emitted, scheduled }) => {
        const compute = scheduled.ops.filter(op => op.queue === 'compute').map(op => op.label)
        const position = new Map(compute.map((label, at) => [label, at]))
        const ready = (op: Op) => {
          const producers = emitted.ops.filter(
            other => other.queue === 'compute' && other.outputs.some(name => op.inputs.includes(name)),
          )
          return Math.max(...producers.map(other => position.get(other.label) ?? -1).filter(at => at >= 0))
        }
        const comm = scheduled.ops.filter(op => op.queue === 'comm')
        for (const [at, op] of comm.entries()) {
          if (isExchange(op) || op.segment.phase === 'update') continue
          const later = comm.slice(at + 1).filter(other => isExchange(other) && ready(other) <= ready(op))
          expect(labels(later)).toEqual([])
        }
      }),
      { numRuns: 100 },
    )
  })
})

group('sequential', () => {
  it('never computes while an all-to-all or its counts travel', () => {
    fc.assert(
      fc.property(emit, pattern, ({ emitted }, list) => {
        const times = timesOf(emitted, list)
        const scheduled = schedule(emitted, { strategy: 'Sequential' }, times)
        const { start, end } = makespan(scheduled, emitted, times)
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

  it('hides nothing by its own account', () => {
    const emitted = emitTrain(
      configOf({ kind: 'Top2', topK: 2, pairs: 2, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 }),
      0,
    )
    const times = Float64Array.from(emitted.ops, op => (op.queue === 'compute' ? 5 : isExchange(op) ? 3 : 0))
    const scheduled = schedule(emitted, { strategy: 'Sequential' }, times)
    const result = overlap(scheduled, makespan(scheduled, emitted, times))
    expect(result.hiddenPercent).toBe(0)
    expect(result.waited).toBe(result.communication)
  })
})

const total = (list: number[]) => list.reduce((a, b) => a + b, 0)
const window = { gate: 3, encode: 2, dispatch: 40, experts: 30, combine: 25, decode: 4, mlp: 17, attn1: 23, shared: 19 }
/** A forward pass of one ScMoE pair in which each part takes what `parts` says; attention before it and the head after it take nothing. */
function forwardWindow(parts: typeof window) {
  const emitted = emitEvaluate(
    configOf({ kind: 'ScMoE', topK: 1, pairs: 1, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 }),
    0,
  )
  const count = (part: string) => emitted.ops.filter(op => op.segment.part === part).length
  const durations: Record<string, number> = parts
  const times = Float64Array.from(emitted.ops, ({ segment }) => (durations[segment.part] ?? 0) / count(segment.part))
  return { emitted, times }
}

const onePair = (kind: 'SharedExpert' | 'Top2') =>
  emitTrain(configOf({ kind, topK: 1, pairs: 1, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 }), 0)

group('shortcut', () => {
  it('takes gate + encode + max(pre, dispatch) + experts + max(post, combine) + decode (arXiv 2404.05019, section 3.3)', () => {
    const part = fc.integer({ min: 0, max: 100 })
    const parts = fc.record({
      gate: part,
      encode: part,
      dispatch: part,
      experts: part,
      combine: part,
      decode: part,
      mlp: part,
      attn1: part,
      shared: part,
    })
    fc.assert(
      fc.property(parts, fc.constantFrom(1 as const, 2 as const, 3 as const, 4 as const), (t, slot) => {
        const { emitted, times } = forwardWindow(t)
        const backbone = [t.mlp, t.attn1, t.shared]
        const pre = Math.max(total(backbone.slice(0, slot - 1)), t.dispatch)
        const post = Math.max(total(backbone.slice(slot - 1)), t.combine)
        const scheduled = schedule(emitted, { strategy: 'Shortcut', forwardSlot: slot, backwardSlot: 1 }, times)
        expect(makespan(scheduled, emitted, times).total).toBeCloseTo(
          t.gate + t.encode + pre + t.experts + post + t.decode,
          6,
        )
      }),
    )
  })

  it('places the experts where the slot says, forward and backward', () => {
    const emitted = emitTrain(
      configOf({ kind: 'ScMoE', topK: 1, pairs: 1, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 }),
      0,
    )
    const parts = (choice: Choice, phase: string) =>
      schedule(emitted, choice)
        .ops.filter(op => op.queue === 'compute' && op.segment.pair === 0 && op.segment.phase === phase)
        .map(op => op.segment.part)
        .filter((part, at, list) => part !== list[at - 1])
        .join(' ')
    const forward = (slot: 1 | 2 | 3 | 4) =>
      parts({ strategy: 'Shortcut', forwardSlot: slot, backwardSlot: 1 }, 'forward')
    const backward = (slot: 1 | 2 | 3 | 4) =>
      parts({ strategy: 'Shortcut', forwardSlot: 1, backwardSlot: slot }, 'backward')
    expect(forward(1)).toBe('attn0 gate encode experts mlp attn1 shared decode')
    expect(forward(2)).toBe('attn0 gate encode mlp experts attn1 shared decode')
    expect(forward(3)).toBe('attn0 gate encode mlp attn1 experts shared decode')
    expect(forward(4)).toBe('attn0 gate encode mlp attn1 shared experts decode')
    expect(backward(1)).toBe('decode experts wgrad shared attn1 mlp encode gate attn0')
    expect(backward(2)).toBe('decode shared experts wgrad attn1 mlp encode gate attn0')
    expect(backward(3)).toBe('decode shared attn1 experts wgrad mlp encode gate attn0')
    expect(backward(4)).toBe('decode shared attn1 mlp experts wgrad encode gate attn0')
  })

  it('runs only the shared expert beside the exchanges of a SharedExpert model, and nothing of a Top2 model', () => {
    const found = choices(onePair('SharedExpert'), 'Shortcut')
    expect(found.map(describe)).toEqual([
      'shortcut K=3, backward K=1, 1 chunk',
      'shortcut K=3, backward K=2, 1 chunk',
      'shortcut K=4, backward K=1, 1 chunk',
      'shortcut K=4, backward K=2, 1 chunk',
    ])
    expect(choices(onePair('Top2'), 'Auto')).toEqual([{ strategy: 'Sequential' }])
    expect(() => choices(onePair('Top2'), 'Shortcut')).toThrow(ScheduleError)
    expect(() => schedule(onePair('Top2'), { strategy: 'Shortcut', forwardSlot: 1, backwardSlot: 1 })).toThrow(
      /ScMoE or SharedExpert/,
    )
    expect(() => choices(onePair('SharedExpert'), 'Auto', 1)).toThrow(
      /overlap.slot is 1, but this model has the slots 3, 4/,
    )
  })
})

group('choose', () => {
  it('Auto is never predicted to be slower than any fixed choice', () => {
    fc.assert(
      fc.property(emit, pattern, ({ emitted }, list) => {
        const times = timesOf(emitted, list)
        const best = choose(emitted, times, 'Auto')
        for (const choice of choices(emitted, 'Auto')) {
          const fixed = makespan(schedule(emitted, choice, times), emitted, times).total
          expect(best.predicted).toBeLessThanOrEqual(fixed * (1 + 1e-6))
        }
      }),
      { numRuns: 30 },
    )
  })

  it('breaks ties toward the slot with more time to spare on both sides', () => {
    // Everything is hidden in slots 2 and 3; slot 2 leaves 17 - 10 and 42 - 12, slot 3 leaves 40 - 10 and 19 - 12: equal minima, smaller slot.
    const tie = forwardWindow({ ...window, dispatch: 10, combine: 12 })
    expect(choose(tie.emitted, tie.times, 'Auto').choice).toMatchObject({ forwardSlot: 2 })
    // With a longer dispatch slot 3 leaves more.
    const longer = forwardWindow({ ...window, dispatch: 15, combine: 12 })
    expect(choose(longer.emitted, longer.times, 'Auto').choice).toMatchObject({ forwardSlot: 3 })
  })

  it('keeps to the strategy and the slot it is given', () => {
    const { emitted, times } = forwardWindow(window)
    expect(choose(emitted, times, 'Sequential').choice).toEqual({ strategy: 'Sequential' })
    expect(choose(emitted, times, 'Shortcut', 4).choice).toMatchObject({ strategy: 'Shortcut', forwardSlot: 4 })
    expect(choose(emitted, times, 'Auto', 1).candidates).toHaveLength(2)
  })

  it('finds a shortcut faster than sequential for every model that has a window, as far as exchanges alone are concerned', () => {
    fc.assert(
      fc.property(job, model => {
        const emitted = emitTrain(configOf(model), 0)
        const guess = estimateTimes(emitted, { flopsPerSecond: 1e9, bytesPerSecond: 1e8, latencySeconds: 1e-5 })
        const times = guess.map((time, at) => (emitted.ops[at]?.op === 'all_reduce' ? 0 : time))
        const { candidates, choice } = choose(emitted, times, 'Auto')
        expect(choice.strategy).toBe(model.kind === 'Top2' ? 'Sequential' : 'Shortcut')
        expect(candidates).toHaveLength({ Top2: 1, SharedExpert: 5, ScMoE: 17 }[model.kind])
      }),
      { numRuns: 50 },
    )
  })
})

group('overlap', () => {
  it('tells waiting for an exchange from waiting for a sum that is queued before it', () => {
    const segment = { pair: 0, phase: 'forward', part: 'experts' } as const
    const op = (label: string, queue: 'compute' | 'comm', name: Op['op'], waits: number[]) => {
      return { op: name, label, queue, inputs: [], outputs: [], attrs: {}, segment, cost: 0, waits }
    }
    const scheduled: Scheduled = {
      name: 'handmade',
      buffers: [],
      ops: [
        op('a', 'compute', 'add', []), //             0 .. 10
        op('sum', 'comm', 'all_reduce', []), //       8 .. 14
        op('exchange', 'comm', 'all_to_all', [0]), // 14 .. 20
        op('b', 'compute', 'add', [2]), //            20 .. 30, stood still from 10: 4 for the sum, 6 for the exchange
        op('late', 'comm', 'all_reduce', []), //      25 .. 33
        op('c', 'compute', 'add', [4]), //            33 .. 34: 3 for the sum
      ],
    }
    const start = Float64Array.of(0, 8, 14, 20, 25, 33)
    const end = Float64Array.of(10, 14, 20, 30, 33, 34)
    expect(overlap(scheduled, { start, end })).toMatchObject({
      waited: 6,
      waitedForReduce: 7,
      communication: 6,
      hiddenPercent: 0,
    })
  })

  it('reports all hidden when the window is long enough, and none of it when there is no communication', () => {
    const { emitted, times } = forwardWindow({ ...window, dispatch: 10, combine: 10 })
    const scheduled = schedule(emitted, { strategy: 'Shortcut', forwardSlot: 2, backwardSlot: 1 }, times)
    expect(overlap(scheduled, makespan(scheduled, emitted, times)).hiddenPercent).toBe(100)
  })

  it('measures the share of the all-to-alls in the MoE branch', () => {
    const { emitted, times } = forwardWindow(window)
    const scheduled = schedule(emitted, { strategy: 'Sequential' }, times)
    const share = overlap(scheduled, makespan(scheduled, emitted, times)).communicationShareOfMoe
    expect(share).toBeCloseTo((40 + 25) / (3 + 2 + 40 + 30 + 25 + 4), 9)
  })
})

// Tests of routed rows in chunks: the ops that are split, their order, and their predicted time.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { emitEvaluate, emitTrain } from '../../../worker/emit/emit.ts'
import type { Emitted, Op } from '../../../worker/program/program.ts'
import { split } from '../../../worker/schedule/chunks.ts'
import { choices, makespan, schedule } from '../../../worker/schedule/schedule.ts'
import { accesses, emittedLabel } from '../../support/accesses.ts'
import { runTogether } from '../../support/happens-before.ts'
import { choiceOf, configOf, type Job, job, wish } from '../../support/program-arbitraries.ts'

const RANKS = { units: 1, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 } as const
const train = (shape: Partial<Job> & Pick<Job, 'kind'>) => emitTrain(configOf({ ...RANKS, ...shape }), 0)
const short = (label: string) => label.replace(/^unit0\.(forward|backward)\./, '')
const of = (ops: readonly Op[], phase: string, pattern: RegExp) =>
  ops.filter(op => op.segment.phase === phase && pattern.test(op.label)).map(op => short(op.label))

describe('split', () => {
  // Seen failing: chunks op by op, which lets the second op of a chunk wait for the whole first op.
  it('makes all dispatches, then the experts chunk by chunk, then all combines', () => {
    const { ops, source } = split(train({ kind: 'Top2' }), 2)
    expect(of(ops, 'forward', /dispatch|experts|combine/)).toEqual([
      'dispatch.0of2',
      'dispatch.1of2',
      'experts.up.0of2',
      'experts.act.0of2',
      'experts.down.0of2',
      'experts.up.1of2',
      'experts.act.1of2',
      'experts.down.1of2',
      'combine.0of2',
      'combine.1of2',
    ])
    expect(of(ops, 'backward', /dispatch|experts|combine|moe\.wgrad|\.wgrad\.(up|down)/).slice(0, 10)).toEqual([
      'combine.0of2',
      'combine.1of2',
      'experts.down.0of2',
      'experts.act.0of2',
      'experts.up.0of2',
      'experts.down.1of2',
      'experts.act.1of2',
      'experts.up.1of2',
      'dispatch.0of2',
      'dispatch.1of2',
    ])
    expect(ops.every((op, at) => emittedLabel(op) === train({ kind: 'Top2' }).ops[source[at] ?? -1]?.label)).toBe(true)
  })

  it('leaves whole what is not of the routed rows, and the weight gradients', () => {
    const ops = split(train({ kind: 'ScMoE' }), 4).ops.filter(op => op.attrs['chunks'] === 4)
    expect(new Set(ops.map(op => op.segment.part))).toEqual(new Set(['dispatch', 'experts', 'combine']))
    expect(ops.some(op => op.op === 'grouped_linear_wgrad')).toBe(false)
  })

  it('splits both branches of DGMoE, and experts that are computed again', () => {
    const count = (emitted: Emitted, pattern: RegExp) =>
      split(emitted, 8).ops.filter(op => pattern.test(op.label) && op.attrs['chunks'] === 8).length
    const emitted = train({ kind: 'DGMoE', recompute: true })
    expect(count(emitted, /current\.dispatch\.\dof8$/)).toBe(16)
    expect(count(emitted, /backward.*again.*\dof8$/)).toBe(2 * 2 * 8)
  })
})

/**
 * Runs a schedule with values that stand for everything they were computed from. A buffer has one
 * number for each of `regions` chunks of rows.
 */
class Symbolic {
  readonly #values = new Map<string, number[]>()
  readonly #regions: number
  constructor(regions: number) {
    this.#regions = regions
  }

  run(op: Op): void {
    const chunked = op.attrs['chunks'] !== undefined
    const own = accesses(op)
    const all = Array.from({ length: this.#regions }, (_, region) => region)
    const chunk = Number(op.attrs['chunks'] ?? 1) > 1 ? Number(op.attrs['chunk']) : undefined
    // The result of an op in region i comes from region i of buffers that it reads in chunks, and
    // from all regions of other buffers.
    const sources = own.filter(access => access.reads)
    const results = own
      .filter(({ writes }) => writes)
      .map(({ name }, output) => {
        const before = this.#of(name)
        const after = all.map(region => {
          if (chunk !== undefined && region !== chunk) return before[region] ?? 0
          const seen = sources.flatMap(access =>
            chunked && isRouted(op, access.name) ? [this.#of(access.name)[region] ?? 0] : this.#of(access.name),
          )
          return hash([emittedLabel(op), output, ...seen])
        })
        return [name, after] as const
      })
    for (const [name, after] of results) this.#values.set(name, after)
  }

  persistent(emitted: Emitted): [string, number[]][] {
    return emitted.buffers.filter(({ arena }) => arena === 'persistent').map(({ name }) => [name, this.#of(name)])
  }

  #of(name: string): number[] {
    return this.#values.get(name) ?? Array.from({ length: this.#regions }, () => hash([name]))
  }
}

/** Buffers of routed rows, as the op table names them for ops that work on one chunk. */
const isRouted = (op: Op, name: string) =>
  accesses({ ...op, attrs: { ...op.attrs, chunk: 0, chunks: 2 } }).some(
    access => access.name === name && access.chunk === 0,
  )

function hash(values: readonly (string | number)[]): number {
  let h = 0x811c9dc5
  for (const char of values.join(' ')) h = Math.imul(h ^ char.charCodeAt(0), 0x01000193)
  return h >>> 0
}

describe('a program in chunks', () => {
  // Seen failing: combine.0 that needs no expert; gelu.1 that reads rows of chunk 0; wgrad that
  // waits for the last chunk's dgrad alone.
  it('computes the same from the same as the emitted one, however its queues interleave', () => {
    fc.assert(
      fc.property(job, wish, fc.array(fc.nat(9), { minLength: 1, maxLength: 30 }), (model, wanted, picks) => {
        const emitted = emitTrain(configOf(model), 0)
        const choice = choiceOf(wanted, choices(emitted, { strategy: 'Auto' }))
        const regions = choice.strategy === 'Sequential' ? 1 : choice.chunks
        const [expected, found] = [new Symbolic(regions), new Symbolic(regions)]
        for (const op of emitted.ops) expected.run(op)
        for (const { op } of runTogether([schedule(emitted, choice)], picks)) found.run(op)
        expect(found.persistent(emitted)).toEqual(expected.persistent(emitted))
      }),
      { numRuns: 40 },
    )
  })
})

describe('pipelined', () => {
  const emitted = emitEvaluate(configOf({ ...RANKS, kind: 'Top2' }), 0)
  const TIMES: Record<string, number> = {
    gate: 3e6,
    encode: 2e6,
    dispatch: 40e6,
    experts: 30e6,
    combine: 25e6,
    decode: 4e6,
  }
  const profile = (latency: number) => {
    const count = (part: string) => emitted.ops.filter(op => op.segment.part === part).length
    const times = Float64Array.from(emitted.ops, ({ segment: { part } }) => (TIMES[part] ?? 0) / count(part))
    return { times: [times], contention: 0, latency }
  }
  const total = (chunks: number, latency = 0) => {
    const scheduled = schedule(emitted, { strategy: 'Pipelined', chunks }, profile(latency))
    return makespan(scheduled, emitted, profile(latency)).total / 1e6
  }

  // Seen failing: combines queued in front of dispatches; a chunk that takes as long as the whole.
  it('works on one chunk while the next travels', () => {
    // Dispatches end at 20, 40 after encode; experts at 35, 55; combines at 52.5, 67.5.
    expect(total(2)).toBeCloseTo(3 + 2 + 67.5 + 4, 4)
    // Dispatches 10, 20, 30, 40; experts 17.5, 27.5, 37.5, 47.5; combines 46.25, 52.5, 58.75, 65.
    expect(total(4)).toBeCloseTo(3 + 2 + 65 + 4, 4)
    expect(total(1)).toBeCloseTo(3 + 2 + 40 + 30 + 25 + 4, 4)
  })

  it('pays the latency of a collective once more for each further chunk', () => {
    // Dispatches end at 22.5, 45; experts at 60; the last combine takes 12.5 and half of the
    // latency of 5 added.
    expect(total(2, 5e6)).toBeCloseTo(3 + 2 + 45 + 15 + 15 + 4, 4)
  })

  // Seen failing: weight gradients in front of the data gradients.
  it('runs the weight gradients of the experts behind the last chunk, beside the second all-to-all', () => {
    const ops = schedule(train({ kind: 'Top2' }), { strategy: 'Pipelined', chunks: 2 }).ops
    const backward = ops.filter(
      op => op.segment.phase === 'backward' && op.queue === 'compute' && op.segment.unit === 0,
    )
    const parts = backward.map(op => op.segment.part).filter((part, at, list) => part !== list[at - 1])
    expect(parts.join(' ')).toBe('decode experts wgrad encode gate attn1 mlp attn0')
    const wgrad = ops.findIndex(op => op.op === 'grouped_linear_wgrad')
    expect(ops[wgrad]?.waits).toEqual([])
    expect(ops.slice(0, wgrad).some(op => op.label === 'unit0.backward.dispatch.0of2')).toBe(true)
  })
})

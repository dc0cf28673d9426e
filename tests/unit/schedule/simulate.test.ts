// Tests of the formulas of `scmoe simulate`, and of one rank's program without the other ranks.
// tests/unit/cli/simulate.test.ts tests the command.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Computed, collectiveTime, type Network, predict, step } from '../../../cli/simulate/predict.ts'
import { networkOf } from '../../../cli/simulate/validate.ts'
import { alone, balancedCounts, countBuffers, ONES } from '../../../worker/emit/alone.ts'
import { emitMicroBatch, emitTrain } from '../../../worker/emit/emit.ts'
import type { ModelConfig } from '../../../worker/model/config.ts'
import { reads, violation, writes } from '../../../worker/program/effects.ts'
import type { Emitted } from '../../../worker/program/program.ts'
import { configOf, job } from '../../support/program-arbitraries.ts'

const EIGHT = configOf({
  kind: 'ScMoE',
  units: 2,
  worldSize: 8,
  expertParallelSize: 4,
  expertsPerRank: 2,
  sequence: 32,
  microBatches: 4,
})
const NETWORK: Network = { bytesPerSecond: 1e8, latencyMicroseconds: 30, peerMicroseconds: 5 }
const INSTANT: Network = { bytesPerSecond: Number.POSITIVE_INFINITY, latencyMicroseconds: 0, peerMicroseconds: 0 }

const allPrograms = (model: ModelConfig): Emitted[] => [
  emitMicroBatch(model, 0, true),
  emitMicroBatch(model, 0, false),
  emitTrain(model, 0),
]
/** Every compute op takes `each` microseconds. */
const evenly = (model: ModelConfig, each: number): Computed =>
  new Map(allPrograms(model).map(({ name, ops }) => [name, new Map(ops.map(({ label }) => [label, each]))]))
const countCompute = ({ ops }: Emitted) => ops.filter(({ queue }) => queue === 'compute').length
const find = (model: ModelConfig, wanted: string) => {
  const found = emitTrain(model, 0).ops.find(
    ({ op, attrs }) => (attrs['group'] ? `${op} ${attrs['group']}` : op) === wanted,
  )
  if (!found) throw new Error(`no ${wanted}`)
  return found
}

const time = (wanted: string) => collectiveTime(find(EIGHT, wanted), { model: EIGHT, network: NETWORK })

describe('the time of a collective', () => {
  it('of an all-to-all is latency, three more peers, and three quarters of the rows over the bandwidth', () => {
    const rows = 32 * EIGHT.topK
    expect(time('all_to_all')).toBeCloseTo(30 + 3 * 5 + ((rows * 16 * 4 * 3) / 4 / 1e8) * 1e6)
  })

  it('of an all-reduce is that of its two halves, among the ranks of its group', () => {
    const { outputs } = find(EIGHT, 'all_reduce edp')
    const sizes = new Map(emitTrain(EIGHT, 0).buffers.map(({ name, elements }) => [name, elements]))
    const elements = outputs.reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0)
    expect(time('all_reduce edp')).toBeCloseTo(2 * (30 + 5) + ((2 * elements * 4) / 2 / 1e8) * 1e6)
  })

  it('of the counts is latency and a message for each rank of the world', () => {
    expect(time('all_gather_counts')).toBeCloseTo(30 + 7 * 5 + ((8 * 7 * 4) / 1e8) * 1e6)
  })

  it('is found again from what collectives took', () => {
    const [emitted, network] = [emitTrain(EIGHT, 0), { ...NETWORK, peerMicroseconds: 0 }]
    const times = Float64Array.from(emitted.ops, op => collectiveTime(op, { model: EIGHT, network }) ?? 0)
    const found = networkOf(emitted, { times: [times, times] })
    // The few bytes of the counts are taken for latency.
    expect(found.latencyMicroseconds).toBeCloseTo(30, -1)
    expect(found.bytesPerSecond / 1e8).toBeCloseTo(1, 0)
  })
})

describe('a predicted step', () => {
  it('on an instant network is all its compute, micro-batch after micro-batch, under every schedule', () => {
    const world = { model: EIGHT, computed: evenly(EIGHT, 10), network: INSTANT, contention: 0 }
    const [first = 0, further = 0, last = 0] = allPrograms(EIGHT).map(countCompute)
    const { stepMilliseconds, sequentialMilliseconds, tokensPerSecond } = predict(world, { strategy: 'Auto' })
    expect(stepMilliseconds).toBeCloseTo((first + 2 * further + last) / 100)
    expect(sequentialMilliseconds).toBeCloseTo(stepMilliseconds)
    expect(tokensPerSecond).toBeCloseTo((8 * 4 * 32) / (stepMilliseconds / 1000))
  })

  it('hides what fits beside the backbone, and grows with latency', () => {
    const world = { model: EIGHT, computed: evenly(EIGHT, 200), network: NETWORK, contention: 0 }
    const near = predict(world, { strategy: 'Auto' })
    expect(near.schedule).toMatch(/^shortcut/)
    expect(near.hiddenPercent).toBeGreaterThan(90)
    expect(near.stepMilliseconds).toBeLessThan(near.sequentialMilliseconds)
    const far = predict({ ...world, network: { ...NETWORK, latencyMicroseconds: 5000 } }, { strategy: 'Auto' })
    expect(far.stepMilliseconds).toBeGreaterThan(2 * near.stepMilliseconds)
    expect(far.hiddenPercent).toBeLessThan(near.hiddenPercent)
  })

  it('of one rank alone copies where others would exchange', () => {
    const model = configOf({ kind: 'Top1', units: 1, worldSize: 1, expertParallelSize: 1, expertsPerRank: 2 })
    const world = { model, computed: evenly(model, 10), network: NETWORK, contention: 0 }
    const { ops } = emitTrain(model, 0)
    const copies = ops.filter(({ op }) => op === 'all_to_all').length
    expect(step(world, { strategy: 'Sequential' }).total).toBeCloseTo(10 * (countCompute(emitTrain(model, 0)) + copies))
  })

  it('wants a time for every compute op', () => {
    const world = { model: EIGHT, computed: new Map(), network: NETWORK, contention: 0 }
    expect(() => step(world, { strategy: 'Sequential' })).toThrow(/has not been measured/)
  })
})

// Seen failing with `ones` left out of the buffers, all_reduce kept, and counts left transient.
describe("one rank's program without the others", () => {
  it('fits the op table, reads nothing that was not written, and keeps every compute op and its label', () => {
    fc.assert(
      fc.property(job, shape => {
        const model = configOf(shape)
        for (const emitted of allPrograms(model)) {
          const { ops, buffers } = alone(emitted)
          expect(ops.flatMap(op => violation(op) ?? [])).toEqual([])
          const wanted = emitted.ops.filter(({ op, queue }) => queue === 'compute' || op === 'all_to_all')
          expect(ops.map(({ label }) => label)).toEqual(wanted.map(({ label }) => label))
          const known = new Set(buffers.flatMap(({ arena, name }) => (arena === 'persistent' ? [name] : [])))
          for (const op of ops) {
            expect(reads(op).filter(name => !known.has(name))).toEqual([])
            for (const name of writes(op)) known.add(name)
          }
          expect([...countBuffers(emitted), ONES].filter(name => !known.has(name))).toEqual([])
        }
      }),
    )
  })

  it('has as many rows for every rank and expert as all tokens allow, to a row', () => {
    fc.assert(
      fc.property(job, shape => {
        const model = configOf(shape)
        const { worldSize, experts, batch, sequence, topK } = model
        const counts = balancedCounts(model)
        const total = batch * sequence * topK
        for (let rank = 0; rank < worldSize; rank++) {
          const row = counts.subarray(rank * experts, (rank + 1) * experts)
          expect(row.reduce((sum, count) => sum + count, 0)).toBe(total)
          expect(Math.max(...row) - Math.min(...row)).toBeLessThanOrEqual(1)
        }
      }),
    )
  })

  // Seen failing where every rank gave its odd rows to the same experts.
  it('leaves no rank without rows where there are fewer tokens than experts', () => {
    const model = configOf({
      kind: 'Top1',
      units: 1,
      worldSize: 8,
      expertParallelSize: 8,
      expertsPerRank: 1,
      sequence: 4,
    })
    const counts = balancedCounts(model)
    const arriving = Array.from({ length: 8 }, (_, expert) =>
      Array.from({ length: 8 }, (_row, rank) => counts[rank * 8 + expert] ?? 0).reduce((sum, count) => sum + count, 0),
    )
    expect(arriving).toEqual(Array.from({ length: 8 }, () => 4))
  })
})

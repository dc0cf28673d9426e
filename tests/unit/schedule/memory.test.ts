// Tests of the memory plan. It is judged by reachability over queue order and waits
// (happens-before.ts), and not by the planner's own clocks.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { emitEvaluate, emitTrain } from '../../../worker/emit/emit.ts'
import { BYTES, type PlacedBuffer } from '../../../worker/program/program.ts'
import { assemble, choices, choose, estimate, planMemory, schedule } from '../../../worker/schedule/schedule.ts'
import { happensBefore } from '../../support/happens-before.ts'
import { choiceOf, configOf, job, measured, profileOf, wish } from '../../support/program-arbitraries.ts'

const SCMOE = { kind: 'ScMoE', worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 } as const

const endOf = ({ offset, elements, dtype }: PlacedBuffer) => offset + BYTES[dtype] * elements
const disjoint = (a: PlacedBuffer, b: PlacedBuffer) => endOf(a) <= b.offset || endOf(b) <= a.offset

describe('memory plan', () => {
  it('gives two buffers common memory only when one is surely finished before the other begins, under any timing', () => {
    fc.assert(
      fc.property(job, wish, measured, (model, wanted, shape) => {
        const config = configOf(model)
        const emitted = emitTrain(config, 0)
        const profile = profileOf(emitted, config.worldSize, shape)
        const scheduled = schedule(emitted, choiceOf(wanted, choices(emitted, { strategy: 'Auto' })), profile)
        const before = happensBefore(scheduled)
        const users = new Map<string, number[]>()
        for (const [at, op] of scheduled.ops.entries())
          for (const name of [...op.inputs, ...op.outputs]) users.set(name, [...(users.get(name) ?? []), at])
        const ends = (a: string, b: string) =>
          (users.get(a) ?? []).every(x => (users.get(b) ?? []).every(y => before(x, y)))
        const { buffers, transientBytes } = planMemory(scheduled)
        const transient = buffers.filter(buffer => buffer.arena === 'transient')
        const clashes = transient.flatMap((a, i) =>
          transient
            .slice(i + 1)
            .filter(b => !disjoint(a, b) && !ends(a.name, b.name) && !ends(b.name, a.name))
            .map(b => `${a.name} and ${b.name}`),
        )
        expect(clashes).toEqual([])
        expect(transient.filter(b => b.offset % 64 !== 0 || endOf(b) > transientBytes)).toEqual([])
      }),
      { numRuns: 40 },
    )
  })

  it('reuses memory: less than two thirds of what all transient buffers add up to', () => {
    const config = configOf({ ...SCMOE, units: 3, dim: 64, feedForward: 256, sequence: 64 })
    const emitted = emitTrain(config, 0)
    const scheduled = schedule(emitted, { strategy: 'Sequential' })
    const all = emitted.buffers.filter(b => b.arena === 'transient').reduce((sum, b) => sum + 4 * b.elements, 0)
    expect(planMemory(scheduled).transientBytes).toBeLessThan((2 / 3) * all)
  })

  it('puts persistent buffers at the same place in every program of a rank, whatever the schedule', () => {
    fc.assert(
      fc.property(job, wish, (model, wanted) => {
        const config = configOf(model)
        const persistent = [emitTrain(config, 0), emitEvaluate(config, 0)].map(emitted => {
          const program = assemble(
            schedule(emitted, choiceOf(wanted, choices(emitted, { strategy: 'Auto' }))),
            config,
            0,
          )
          return {
            bytes: program.persistentBytes,
            list: program.buffers.filter(buffer => buffer.arena === 'persistent'),
          }
        })
        expect(persistent[1]).toEqual(persistent[0])
      }),
      { numRuns: 30 },
    )
  })

  it('keeps gradients of one bucket beside each other where their sizes are multiples of a cache line', () => {
    const config = configOf({ ...SCMOE, units: 1, dim: 16, feedForward: 32 })
    const { ops, buffers } = assemble(schedule(emitTrain(config, 0), { strategy: 'Sequential' }), config, 0)
    const bucket = ops
      .find(op => op.label === 'unit0.backward.reduce.blocks.0.attn')
      ?.inputs.map(index => buffers[index])
    expect(bucket?.length).toBe(4)
    // Gradients whose sizes are multiples of a cache line lie without gaps.
    const whole = bucket?.filter(buffer => (buffer?.elements ?? 0) % 16 === 0) ?? []
    const gaps = whole
      .slice(1)
      .filter((buffer, at) => buffer?.offset !== (whole[at]?.offset ?? 0) + 4 * (whole[at]?.elements ?? 0))
    expect(gaps).toEqual([])
  })
})

describe('program', () => {
  it('names buffers and earlier ops by index, within bounds', () => {
    fc.assert(
      fc.property(job, wish, (model, wanted) => {
        const config = configOf(model)
        const emitted = emitTrain(config, 0)
        const scheduled = schedule(emitted, choiceOf(wanted, choices(emitted, { strategy: 'Auto' })))
        const { ops, buffers } = assemble(scheduled, config, 0)
        for (const [at, op] of ops.entries()) {
          expect(op.inputs.map(index => buffers[index]?.name)).toEqual(scheduled.ops[at]?.inputs)
          expect(op.outputs.map(index => buffers[index]?.name)).toEqual(scheduled.ops[at]?.outputs)
          expect(op.waits.every(wait => wait < at)).toBe(true)
        }
      }),
      { numRuns: 20 },
    )
  })

  it('of 24 blocks of width 512 has all its schedules weighed and its memory planned', () => {
    const config = configOf({ ...SCMOE, units: 12, dim: 512, feedForward: 2048, sequence: 512 })
    const emitted = emitTrain(config, 0)
    const profile = estimate(emitted, { flopsPerSecond: 1e11, bytesPerSecond: 1e9, latencySeconds: 1e-4 })
    const { candidates, scheduled } = choose(emitted, profile, { strategy: 'Auto' })
    // 1 sequential, 4 forward times 4 backward slots in 1, 2, 4 or 8 chunks, pipelined in 2, 4 or
    // 8.
    expect(candidates).toHaveLength(1 + 4 * 4 * 4 + 3)
    expect(assemble(scheduled, config, 0).ops.length).toBeGreaterThanOrEqual(emitted.ops.length)
  })
})

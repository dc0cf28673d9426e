// Tests of programs in bfloat16: which buffers are bf16, which stay f32, and how much memory that
// saves.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { emitEvaluate, emitMicroBatch, emitTrain } from '../../../worker/emit/emit.ts'
import type { ModelConfig } from '../../../worker/model/config.ts'
import { tensors } from '../../../worker/model/tensors.ts'
import { specsOf } from '../../../worker/program/effects.ts'
import { type Buffer, BYTES, type Emitted, type Op } from '../../../worker/program/program.ts'
import { planMemory, schedule } from '../../../worker/schedule/schedule.ts'
import { configOf, type Job, job } from '../../support/program-arbitraries.ts'

const programs = (config: ModelConfig) => [
  emitTrain(config, 0),
  emitMicroBatch(config, 0, true),
  emitEvaluate(config, 0),
]
const SCMOE = { kind: 'ScMoE', units: 2, worldSize: 4, expertParallelSize: 2, expertsPerRank: 2 } as const
const both = (model: Job) => ({
  single: emitTrain(configOf({ ...model, precision: 'float32' }), 0),
  half: emitTrain(configOf({ ...model, precision: 'bfloat16' }), 0),
})

/** The types of an op's buffers: of those that the table calls activations, and of the others. */
function typesOf(op: Op, buffers: ReadonlyMap<string, Buffer>) {
  const specs = specsOf(op)
  const places = [
    ...op.inputs.map((name, place) => ({ name, type: specs.inputs[place]?.type })),
    ...op.outputs.map((name, place) => ({ name, type: specs.outputs[place]?.type })),
  ]
  const types = (isActivation: boolean) =>
    new Set(
      places.filter(({ type }) => (type === 'activation') === isActivation).map(({ name }) => buffers.get(name)?.dtype),
    )
  return { marked: types(true), others: types(false) }
}

const byName = ({ buffers }: Emitted) => new Map(buffers.map(buffer => [buffer.name, buffer]))
const persistent = ({ buffers }: Emitted) => buffers.filter(({ arena }) => arena === 'persistent')
const costs = ({ ops }: Emitted, op: Op['op']) => ops.filter(each => each.op === op).map(({ cost }) => cost)

describe('a program in bfloat16', () => {
  // Seen failing with copies left out: products then read operands of two types.
  it('keeps what the op table marks in bf16, all of an op alike, and nothing else; one in float32 keeps none', () => {
    fc.assert(
      fc.property(job, model => {
        const wanted = model.precision === 'bfloat16' ? 'bf16' : 'f32'
        for (const emitted of programs(configOf(model))) {
          const buffers = byName(emitted)
          for (const op of emitted.ops) {
            const { marked, others } = typesOf(op, buffers)
            expect([op.label, ...[...marked].filter(type => type !== wanted)]).toEqual([op.label])
            expect([op.label, others.has('bf16')]).toEqual([op.label, false])
          }
        }
      }),
    )
  })

  it('has the persistent buffers of one in float32, at the same places, all of 4 bytes: checkpoints do not know', () => {
    fc.assert(
      fc.property(job, model => {
        const { single, half } = both(model)
        expect(persistent(half)).toEqual(persistent(single))
        expect(persistent(half).filter(({ dtype }) => BYTES[dtype] !== 4)).toEqual([])
      }),
      { numRuns: 20 },
    )
  })

  // Seen failing with adamw on the copies: the update would be rounded to 8 bits.
  it('copies what products read before all else, once, and updates the parameters themselves', () => {
    fc.assert(
      fc.property(job, model => {
        const config = configOf({ ...model, precision: 'bfloat16' })
        const parameters = new Set(tensors(config).map(({ name }) => name))
        for (const emitted of programs(config)) {
          const [cast, ...rest] = emitted.ops
          expect(cast?.op).toBe('cast')
          expect(rest.filter(({ op }) => op === 'cast')).toEqual([])
          expect(cast?.outputs).toEqual(cast?.inputs.map(name => `${name}.bf16`))
          expect(cast?.inputs.filter(name => !parameters.has(name))).toEqual([])
          const copied = new Set(cast?.outputs)
          expect(rest.filter(({ outputs }) => outputs.some(name => copied.has(name)))).toEqual([])
          for (const { outputs } of rest.filter(({ op }) => op === 'adamw'))
            expect(parameters.has(outputs[0] ?? '')).toBe(true)
        }
      }),
      { numRuns: 20 },
    )
  })

  it('does the same ops in the same order beside the copies', () => {
    const { single, half } = both(SCMOE)
    expect(half.ops.slice(1).map(({ op, label }) => [op, label])).toEqual(
      single.ops.map(({ op, label }) => [op, label]),
    )
  })

  it('sends half the bytes of routed rows, and all of those of gradients', () => {
    const { single, half } = both(SCMOE)
    expect(costs(half, 'all_to_all')).toEqual(costs(single, 'all_to_all').map(bytes => bytes / 2))
    expect(costs(half, 'all_reduce')).toEqual(costs(single, 'all_reduce'))
  })
})

describe('memory in bfloat16', () => {
  const many: Job = { ...SCMOE, units: 3, dim: 64, feedForward: 256, sequence: 512 }
  const transientOf = ({ buffers }: Emitted) => buffers.filter(({ arena }) => arena === 'transient')
  const bytesOf = (list: readonly Buffer[]) =>
    list.reduce((sum, { dtype, elements }) => sum + BYTES[dtype] * elements, 0)

  it('takes half for activations and their gradients, 2 bytes more for a weight, and as much for the rest', () => {
    const { single, half } = both(many)
    const copies = transientOf(half).filter(({ name }) => name.endsWith('.bf16'))
    const halved = new Set(transientOf(half).flatMap(({ name, dtype }) => (dtype === 'bf16' ? [name] : [])))
    const before = transientOf(single)
    const kept = bytesOf(before.filter(({ name }) => !halved.has(name)))
    const activations = bytesOf(before.filter(({ name }) => halved.has(name)))
    expect(bytesOf(transientOf(half))).toBe(kept + activations / 2 + bytesOf(copies))
    expect(kept / activations).toBeLessThan(0.05)
  })

  // Seen failing with 4 bytes for every element of the plan.
  it('is planned by the bytes of each buffer: about half of a step with many tokens', () => {
    const bytes = (emitted: Emitted) => planMemory(schedule(emitted, { strategy: 'Sequential' })).transientBytes
    const { single, half } = both(many)
    const copies = bytesOf(transientOf(half).filter(({ name }) => name.endsWith('.bf16')))
    expect((bytes(half) - copies) / bytes(single)).toBeLessThan(0.55)
    expect((bytes(half) - copies) / bytes(single)).toBeGreaterThan(0.45)
  })
})

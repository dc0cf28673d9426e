// The emitted programs against the op table and against what training needs.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { gradientOf, meanOf, tensors, varianceOf } from '../../worker/model.ts'
import { violation } from '../../worker/program/effects.ts'
import { BUFFER, emitEvaluate, emitTrain } from '../../worker/program/emit.ts'
import type { Emitted, Op } from '../../worker/program/program.ts'
import { configOf, job } from './program-arbitraries.ts'

const SMALL = { topK: 1, pairs: 2, worldSize: 4, expertParallelSize: 2, expertsPerRank: 2 } as const
const programs = (model: Parameters<typeof configOf>[0]) => {
  const config = configOf(model)
  return [emitTrain(config, config.worldSize - 1), emitEvaluate(config, 0)]
}
const named = ({ ops }: Emitted, op: Op['op']) => ops.filter(other => other.op === op)
const flops = ({ ops }: Emitted, phase: string) =>
  ops.reduce(
    (sum, op) =>
      sum + (op.queue === 'compute' && op.segment.phase === phase && /linear|attention/.test(op.op) ? op.cost : 0),
    0,
  )

describe('every emitted program', () => {
  it('fits the op table: queue, number of buffers, attributes', () => {
    fc.assert(
      fc.property(job, model => {
        for (const { ops } of programs(model))
          expect(ops.flatMap(op => (violation(op) === undefined ? [] : [`${op.label} ${violation(op)}`]))).toEqual([])
      }),
    )
  })

  it('has one label per op, declares what it uses, and uses every transient buffer it declares', () => {
    fc.assert(
      fc.property(job, model => {
        for (const { ops, buffers } of programs(model)) {
          expect(new Set(ops.map(op => op.label)).size).toBe(ops.length)
          const declared = new Set(buffers.map(buffer => buffer.name))
          const used = new Set(ops.flatMap(op => op.inputs.concat(op.outputs)))
          expect([...used].filter(name => !declared.has(name))).toEqual([])
          expect(buffers.filter(buffer => buffer.arena === 'transient' && !used.has(buffer.name))).toEqual([])
        }
      }),
    )
  })

  it('says what is wrong with an op that does not fit', () => {
    const [op] = named(emitTrain(configOf({ ...SMALL, kind: 'Top2' }), 0), 'linear')
    if (!op) throw new Error('no linear in the program')
    expect(violation({ ...op, queue: 'comm' })).toMatch(/runs on comm/)
    expect(violation({ ...op, inputs: ['x'] })).toMatch(/1 inputs/)
    expect(violation({ ...op, outputs: ['a', 'b'] })).toMatch(/2 outputs/)
    expect(violation({ ...op, attrs: { rows: 1, in: 2 } })).toMatch(/lacks the attribute out/)
    expect(violation({ ...op, attrs: { ...op.attrs, colour: 1 } })).toMatch(/unknown attribute colour/)
  })
})

describe('training', () => {
  it('zeroes every gradient, computes it, sums it over the right ranks once, and updates every parameter once', () => {
    fc.assert(
      fc.property(job, model => {
        const config = configOf(model)
        const emitted = emitTrain(config, 0)
        const backward = emitted.ops.filter(op => op.queue === 'compute' && op.segment.phase === 'backward')
        const sums = named(emitted, 'all_reduce')
        const replicas = config.worldSize / config.expertParallelSize
        const groupOf = { dense: config.worldSize > 1 ? ['world'] : [], expert: replicas > 1 ? ['edp'] : [] }
        const found = tensors(config).map(({ name }) => {
          const gradient = gradientOf(name)
          const holds = (op: Op) => op.outputs.includes(gradient)
          return {
            name,
            zeroed: named(emitted, 'zero').filter(holds).length,
            computed: backward.some(holds),
            groups: sums.filter(holds).map(op => op.attrs['group']),
            steps: named(emitted, 'adamw')
              .filter(op => op.inputs[0] === gradient)
              .map(op => op.outputs),
          }
        })
        expect(found).toEqual(
          tensors(config).map(({ name, kind }) => {
            const steps = [[name, meanOf(name), varianceOf(name)]]
            return { name, zeroed: 1, computed: true, groups: groupOf[kind], steps }
          }),
        )
      }),
      { numRuns: 30 },
    )
  })

  it('takes the norm of dense gradients once and of experts over the EP group, after every sum', () => {
    const emitted = emitTrain(configOf({ ...SMALL, kind: 'ScMoE' }), 0)
    const order = emitted.ops.map(op => op.label)
    const lastSum = Math.max(
      ...named(emitted, 'all_reduce')
        .filter(op => op.segment.phase === 'backward')
        .map(op => order.indexOf(op.label)),
    )
    expect(order.indexOf('update.squares.expert')).toBeGreaterThan(lastSum)
    const norm = emitted.ops.find(op => op.label === 'update.reduce.norm')
    expect(norm).toMatchObject({ inputs: ['norm.expert'], attrs: { group: 'ep' } })
    expect(
      emitted.ops.filter(op => op.op === 'square_sum').map(op => op.inputs.some(name => name.includes('experts'))),
    ).toEqual([true, false])
  })

  it('costs twice as much backward as forward', () => {
    for (const kind of ['Top2', 'SharedExpert', 'ScMoE'] as const) {
      const emitted = emitTrain(configOf({ ...SMALL, kind, dim: 64, feedForward: 256, sequence: 32 }), 0)
      expect(flops(emitted, 'backward') / flops(emitted, 'forward')).toBeCloseTo(2, 1)
    }
  })

  it('sends every routed row to another rank with probability 1 - 1/P, twice forward and twice backward', () => {
    const config = configOf({ ...SMALL, kind: 'ScMoE' })
    const exchanges = named(emitTrain(config, 0), 'all_to_all')
    expect(exchanges.map(op => `${op.label} ${op.attrs['direction']}`)).toEqual([
      'pair0.forward.dispatch dispatch',
      'pair0.forward.combine combine',
      'pair1.forward.dispatch dispatch',
      'pair1.forward.combine combine',
      'pair1.backward.combine dispatch',
      'pair1.backward.dispatch combine',
      'pair0.backward.combine dispatch',
      'pair0.backward.dispatch combine',
    ])
    for (const { cost } of exchanges) expect(cost).toBe((4 * 8 * 16) / 2)
  })

  it('needs no sums over ranks when it is alone', () => {
    const emitted = emitTrain(configOf({ ...SMALL, kind: 'ScMoE', worldSize: 1, expertParallelSize: 1 }), 0)
    expect(named(emitted, 'all_reduce')).toEqual([])
  })
})

describe('evaluation', () => {
  it('computes loss and balance losses, and touches no parameter, gradient or moment', () => {
    fc.assert(
      fc.property(job, model => {
        const config = configOf(model)
        const { ops, buffers } = emitEvaluate(config, 0)
        const written = new Set(ops.flatMap(op => op.outputs))
        const persistent = buffers.filter(({ name, arena }) => arena === 'persistent' && written.has(name))
        const aux = Array.from({ length: config.pairs }, (_, pair) => BUFFER.aux(pair))
        expect(persistent.map(buffer => buffer.name)).toEqual([BUFFER.loss, ...aux])
      }),
    )
  })
})

// Tests of the values that presets and kinds give to the fields of spec.model.

import { describe, expect, it } from 'vitest'
import { GENERIC, PRESETS, resolveModel } from '../../../crds/presets.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'

const resolve = (model: object = {}) => resolveModel(ScMoEJobSpec.parse({ training: { steps: 1 }, model }).model)

describe('a model', () => {
  // Broken once by a keyValueHeads of 1 in GENERIC, and by a coefficientGate that was the same for
  // every kind.
  it('without preset has the generic sizes, heads of its own for keys and values, and what its kind asks for', () => {
    expect(resolve()).toEqual({
      ...GENERIC,
      kind: 'ScMoE',
      keyValueHeads: 4,
      topK: 1,
      shortcutPosition: 2,
      coefficientGate: 'CG1',
      capacityFactor: '2',
      balanceLossCoefficient: '0.01',
      routerZLossCoefficient: '0',
    })
  })

  it.each(Object.keys(PRESETS))('has every field of preset %s that it leaves out', preset => {
    expect(resolve({ preset })).toMatchObject(PRESETS[preset as keyof typeof PRESETS])
  })

  it.each([
    ['Dense', { topK: 0, shortcutPosition: 1, coefficientGate: 'DirectAdd' }],
    ['Top1', { topK: 1, shortcutPosition: 1, coefficientGate: 'DirectAdd' }],
    ['Top2', { topK: 2, shortcutPosition: 1, coefficientGate: 'DirectAdd' }],
    ['SharedExpert', { topK: 1, shortcutPosition: 1, coefficientGate: 'DirectAdd' }],
    ['ScMoE', { topK: 1, shortcutPosition: 2, coefficientGate: 'CG1' }],
    ['DGMoE', { topK: 1, shortcutPosition: 2, coefficientGate: 'DirectAdd' }],
  ])('of kind %s routes, shortens and gates as the paper says', (kind, routing) => {
    expect(resolve({ kind })).toMatchObject(routing)
  })

  it('with MoE in every block takes its shortcut from its own input', () => {
    expect(resolve({ preset: 'llama2-moe' }).shortcutPosition).toBe(1)
    expect(resolve({ preset: 'llama2-moe', moeLayerFrequency: 2 }).shortcutPosition).toBe(2)
  })

  it('has what it says before what its preset says', () => {
    const { heads, keyValueHeads, experts } = resolve({ preset: 'gpt2-moe-small', heads: 6, experts: 4 })
    expect({ heads, keyValueHeads, experts }).toEqual({ heads: 6, keyValueHeads: 6, experts: 4 })
    expect(resolve({ preset: 'llama2-moe', tieEmbeddings: true }).tieEmbeddings).toBe(true)
    expect(resolve({ preset: 'gpt2-moe-small', tieEmbeddings: false }).tieEmbeddings).toBe(false)
  })

  it('of no capacity factor drops no token', () => {
    expect(resolve({ capacityFactor: 'none' }).capacityFactor).toBeNull()
  })
})

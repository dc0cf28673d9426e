// The op table: that its rows are well formed, that the C++ written from it is up to date, and that
// emitted programs give every op buffers of the sizes that its row wants.

import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { generatedOps } from '../../../tools/op-table.ts'
import { emitEvaluate, emitMicroBatch, emitTrain } from '../../../worker/emit/emit.ts'
import { specsOf } from '../../../worker/program/effects.ts'
import { attrsOf, type BufferSpec, type OpSpec, type Size, sizeOf } from '../../../worker/program/op-spec.ts'
import { OPS } from '../../../worker/program/ops.ts'
import type { Emitted, Op } from '../../../worker/program/program.ts'
import { configOf, job } from '../../support/program-arbitraries.ts'

describe('what is generated from the op table', () => {
  it.each(Object.entries(generatedOps()))('%s is up to date (npm run generate)', (path, text) => {
    expect(readFileSync(path, 'utf8')).toBe(text)
  })
})

/** The names in a size: of attributes, and of buffers in `given`. */
function namesIn(size: Size): string[] {
  if (typeof size === 'number' || size === 'worldRanks') return []
  if (typeof size === 'string') return [size]
  if ('given' in size) return [size.given]
  const parts: Size[] = Array.isArray(size) ? [...size] : Object.values(size).flat()
  return parts.flatMap(namesIn)
}

function sizesOf({ elements }: BufferSpec): Size[] {
  if (elements === 'any' || (typeof elements === 'object' && 'as' in elements)) return []
  return [typeof elements === 'object' && 'routed' in elements ? elements.routed : elements]
}

const rows = Object.entries<OpSpec>(OPS)

describe('a row of the op table', () => {
  it.each(rows)('%s takes its sizes and rules from its own attributes and buffers', (_, spec) => {
    const buffers = [...spec.inputs, ...spec.outputs]
    const rules = [...(spec.rules ?? []), ...(spec.routed?.rules ?? [])]
    const sizes = [
      ...buffers.flatMap(sizesOf),
      ...rules.flatMap(rule => [rule.attr, 'multipleOf' in rule ? rule.multipleOf : rule.atMost]),
    ]
    const known = new Set<string>([...attrsOf(spec), ...spec.inputs.map(({ name }) => name)])
    expect(sizes.flatMap(namesIn).filter(name => !known.has(name))).toEqual([])
    for (const { when } of buffers) expect(when === undefined || spec.attrs.includes(when.attr)).toBe(true)
  })

  it.each(rows)('%s has each name once on a side, optional buffers last, and lists alone', (_, spec) => {
    for (const side of [spec.inputs, spec.outputs]) {
      expect(new Set(side.map(({ name }) => name)).size).toBe(side.length)
      expect(side.slice(0, -1).filter(({ optional }) => optional)).toEqual([])
      if (side.some(({ repeated }) => repeated)) expect(side.length).toBe(1)
    }
  })

  it.each(rows)('%s says by which input its rows are routed if it has buffers of routed rows', (_, spec) => {
    const hasRouted = [...spec.inputs, ...spec.outputs].some(
      ({ elements }) => typeof elements === 'object' && 'routed' in elements,
    )
    expect(spec.routed !== undefined).toBe(hasRouted)
  })
})

/**
 * Buffers of an op that are smaller than its row wants; those of routed rows have as many as each
 * other.
 */
function shortages(op: Op, emitted: Emitted, worldSize: number): string[] {
  const elements = new Map(emitted.buffers.map(buffer => [buffer.name, buffer.elements]))
  const specs = specsOf(op)
  const value = (name: string) => (name === 'worldRanks' ? worldSize : Number(op.attrs[name]))
  const given = (name: string) => specs.inputs.some(spec => spec.name === name)
  const places = [
    ...op.inputs.map((name, i) => ({ name, spec: specs.inputs[i] })),
    ...op.outputs.map((name, i) => ({ name, spec: specs.outputs[i] })),
  ]
  return places.flatMap(({ name, spec }) => {
    if (spec === undefined) return [`${op.label}: ${name} has no place in the row of ${op.op}`]
    const [size] = sizesOf(spec)
    if (size === undefined) return []
    const isRouted = typeof spec.elements === 'object' && 'routed' in spec.elements
    const rowsHeld = isRouted && op.attrs['rows'] !== undefined ? Number(op.attrs['rows']) : 1
    const wanted = rowsHeld * sizeOf(size, { value, given })
    return (elements.get(name) ?? 0) < wanted ? [`${op.label}: ${name} is smaller than ${wanted}`] : []
  })
}

describe('every emitted program', () => {
  it('gives each op buffers of the sizes that its row wants', () => {
    fc.assert(
      fc.property(job, model => {
        const config = configOf(model)
        for (const emitted of [emitTrain(config, 0), emitMicroBatch(config, 0, true), emitEvaluate(config, 0)])
          expect(emitted.ops.flatMap(op => shortages(op, emitted, config.worldSize))).toEqual([])
      }),
      { numRuns: 40 },
    )
  })
})

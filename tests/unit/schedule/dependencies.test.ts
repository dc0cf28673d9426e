// Tests of the order that reads and writes of buffers impose on ops.

import { expect, it } from 'vitest'
import type { Op } from '../../../worker/program/program.ts'
import { dependencies } from '../../../worker/schedule/dependencies.ts'

const op = (name: Op['op'], inputs: string[], outputs: string[], attrs: Op['attrs'] = {}): Op => ({
  op: name,
  label: '',
  queue: 'compute',
  inputs,
  outputs,
  attrs,
  segment: { unit: -1, phase: 'forward', part: 'other' },
  cost: 0,
})

const after = (second: Op) => dependencies([op('zero', [], ['x']), second, op('add', [], ['x'])])

it('a reader follows the last writer, and only that', () => {
  expect(dependencies([op('add', [], ['a']), op('add', [], ['a']), op('add', ['a'], ['b'])])).toEqual([[], [0], [1]])
})

it('a writer follows all readers since the last writer', () => {
  const ops = [op('add', [], ['a']), op('add', ['a'], ['b']), op('add', ['a'], ['c']), op('add', [], ['a'])]
  expect(dependencies(ops).at(-1)?.toSorted()).toEqual([0, 1, 2])
})

it('an op that updates in place follows what wrote the buffer, and the next reader follows the op', () => {
  expect(dependencies([op('add', [], ['a']), op('all_reduce', ['a'], ['a']), op('add', ['a'], ['b'])])).toEqual([
    [],
    [0],
    [1],
  ])
})

it('an op that adds to its output reads it too: by the table, by its attribute, or as the optimizer', () => {
  for (const second of [
    op('linear_wgrad', ['dy', 'y'], ['x', 'db']),
    op('linear_dgrad', ['dy', 'w'], ['x'], { accumulate: 1 }),
    op('adamw', ['g', 'hyper', 'norm'], ['x', 'm', 'v']),
  ])
    expect(after(second)).toEqual([[], [0], [1]])
})

it('ops that share nothing need not follow one another', () => {
  expect(dependencies([op('add', ['a'], ['b']), op('add', ['a'], ['c'])])).toEqual([[], []])
})

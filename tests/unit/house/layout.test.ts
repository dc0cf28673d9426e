// The sizes that keep the house easy to find one's way in: files, functions, folders and chains of
// imports within a folder.

import { dirname } from 'node:path'
import { expect, it } from 'vitest'
import { functionLengths, longestChain, native, tracked, typescript } from '../../support/sources.ts'

const lengthOf = (text: string) => text.split('\n').length - 1
const quantile = (values: readonly number[], share: number) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0
const files = [...typescript.values(), ...native.values()].filter(({ path }) => !path.includes('generated'))

// Decisions are a numbered list, which only grows.
it('has at most 20 files in a folder, and 16 in one of the operator', () => {
  const counts = new Map<string, number>()
  for (const path of tracked.filter(file => !file.startsWith('docs/adr/')))
    counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1)
  const most = (folder: string) => (folder.startsWith('operator') ? 16 : 20)
  expect([...counts].filter(([folder, count]) => count > most(folder))).toEqual([])
})

it('has files of at most 400 lines, half of them of at most 110', () => {
  const lengths = files.map(({ text }) => lengthOf(text))
  expect(files.filter(({ text }) => lengthOf(text) > 400).map(({ path }) => path)).toEqual([])
  expect(quantile(lengths, 0.5)).toBeLessThanOrEqual(110)
})

it('has functions of which nine in ten are at most 40 lines', () => {
  const lengths = files.filter(({ path }) => !path.startsWith('tests/')).flatMap(({ text }) => functionLengths(text))
  expect(lengths.length).toBeGreaterThan(1000)
  expect(quantile(lengths, 0.9)).toBeLessThanOrEqual(40)
})

it('has no chain of imports within a folder that is longer than seven files', () => {
  for (const all of [typescript, native])
    for (const folder of new Set([...all.keys()].map(path => dirname(path)))) {
      const chain = longestChain(folder, all)
      expect(chain.length, chain.join(' > ')).toBeLessThanOrEqual(7)
    }
})

it('measures a function by its braces', () => {
  const text = ['function a() {', '  if (x) {', '    y()', '  }', '}', 'const b = () => {', '  z()', '}', ''].join('\n')
  expect(functionLengths(text)).toEqual([5, 3])
})

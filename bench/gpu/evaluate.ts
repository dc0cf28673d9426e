// Works out figures from the results of bench/gpu/run.sh, on a machine with Node:
//
//   node bench/gpu/evaluate.ts [RESULTS] [--peak-tflops N] [--peak-bf16-tflops N] [--peak-tbytes N]
//
// Adds the figures to the file and prints the tables of docs/performance.md. A peak that is not
// given is the measured one.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { writeJson } from '../report.ts'
import { catalogue } from './catalogue.ts'
import { figuresOf } from './figures.ts'
import type { Peaks } from './peaks.ts'
import { deviceOf, Results } from './results.ts'
import { tables } from './table.ts'

const { values: options, positionals } = parseArgs({
  options: {
    'peak-tflops': { type: 'string' },
    'peak-bf16-tflops': { type: 'string' },
    'peak-tbytes': { type: 'string' },
  },
  allowPositionals: true,
})

function given(name: keyof typeof options, key: keyof Peaks): Partial<Peaks> {
  const text = options[name]
  if (text === undefined) return {}
  const value = Number(text)
  if (!(value > 0)) throw new Error(`--${name} is '${text}', wants a number above 0`)
  return { [key]: value * 1e12 }
}

const [path = 'build/gpu-results.json'] = positionals
const results = Results.parse(JSON.parse(readFileSync(path, 'utf8')))
const copy = given('peak-tbytes', 'bytesPerSecond')
const peaks = {
  float32: { ...given('peak-tflops', 'flopsPerSecond'), ...copy },
  bfloat16: { ...given('peak-bf16-tflops', 'flopsPerSecond'), ...copy },
}
const figures = figuresOf(results, catalogue(), peaks)
writeJson(path, { ...results, figures })
console.log(`${results.date}, ${deviceOf(results)}\n\n${tables(figures)}`)

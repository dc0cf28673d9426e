// Tests of the pages that `npm run docs:measurements` writes from the JSON files of benchmarks.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { measurementPage } from '../../../tools/docs/measurement-page.ts'

const RESULT = {
  bench: 'step',
  date: '2026-11-25',
  machine: 'EPYC, 2 processors',
  command: 'node bench/step.ts --json step.json',
  shape: { hidden: 256, sequence: 512 },
  alone: { milliseconds: 1234.5678, parts: [{ op: 'linear' }] },
  rows: [
    { kind: 'Top2', link: null, rate: 123_456.7, delay: { p50: 2, p99: 3 } },
    { kind: 'a|b', link: 300, more: true, times: [1, 2] },
  ],
}

const folder = mkdtempSync(join(tmpdir(), 'scmoe-measurements-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('a page of measurements', () => {
  it('has title, date, machine, command, single figures, and a table for every list of records', () => {
    expect(measurementPage('step', RESULT)).toBe(`<!-- Written by \`npm run docs:measurements\`. -->

# step

- Date: 2026-11-25
- Machine: EPYC, 2 processors
- Command: node bench/step.ts --json step.json
- Shape: hidden 256, sequence 512
- alone.milliseconds: 1235

## rows

| kind | link | rate | delay.p50 | delay.p99 | more |
| --- | --- | --- | --- | --- | --- |
| Top2 |  | 123457 | 2 | 3 |  |
| a\\|b | 300 |  |  |  | true |
`)
  })

  it('shows the figures of a benchmark with aim, verdict and interval, and how disturbed it was', () => {
    const figures = [
      { name: 'speed', value: 1.2345678, unit: 'x', aim: '>= 1.2', met: true, low: 1.19, high: 1.25 },
      { name: 'hidden', value: 90, unit: '%', aim: null, met: null, low: null, high: null },
    ]
    const page = measurementPage('step', { bench: 'step', date: '2026-11-25', disturbance: { disturbed: 0 }, figures })
    expect(page).toContain('- disturbance.disturbed: 0\n')
    expect(page).toContain(`## figures

| name | value | unit | aim | met | low | high |
| --- | --- | --- | --- | --- | --- | --- |
| speed | 1.235 | x | >= 1.2 | true | 1.19 | 1.25 |
| hidden | 90 | % |  |  |  |  |
`)
  })

  it('is written under the day and the name of the benchmark', () => {
    const file = join(folder, 'result.json')
    writeFileSync(file, JSON.stringify(RESULT))
    const words = ['tools/docs/measurements.ts', file, '--output', folder]
    const printed = execFileSync(process.execPath, words, { encoding: 'utf8' })
    expect(printed).toBe(`${join(folder, '2026-11-25-step.md')}\n`)
    expect(readFileSync(printed.trim(), 'utf8')).toBe(measurementPage('step', RESULT))
  })
})

// Tests of the warnings about valid jobs. tests/api/crds/warnings.test.ts asks the API server the
// same.

import { globSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { readJobs } from '../../../cli/job-file.ts'
import { API_VERSION, KIND } from '../../../crds/contract.ts'
import { PRESETS } from '../../../crds/presets.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { WARNINGS, warningsOf } from '../../../crds/warnings.ts'
import { WARNING_CASES } from '../../support/api/warning-cases.ts'

const specOf = (spec: object) => ScMoEJobSpec.parse({ training: { steps: 100 }, ...spec })

describe('a valid job that would probably not do what is meant', () => {
  it.each(WARNING_CASES)('gets one warning: $name', ({ spec, path, says }) => {
    const [warning, ...more] = warningsOf(specOf(spec))
    expect(more).toEqual([])
    expect(warning).toEqual({ path, message: expect.stringContaining(says) })
    expect(warning?.message).toMatch(/\b(use|set|name|remove)\b/)
    expect(warning?.message).not.toContain('{')
  })

  it('is among the cases for every warning of the table', () => {
    const given = WARNING_CASES.flatMap(({ spec }) => warningsOf(specOf(spec)).map(({ message }) => message))
    for (const warning of WARNINGS)
      expect(
        WARNING_CASES.some(({ spec }) => warning.check(specOf(spec)) !== undefined),
        warning.path,
      ).toBe(true)
    expect(new Set(given).size).toBe(WARNING_CASES.length)
  })

  it('is valid for scmoe validate, which names the line of the field', () => {
    const job = { apiVersion: API_VERSION, kind: KIND, metadata: { name: 'j' } }
    const text = stringify({ ...job, spec: { training: { steps: 6, optimizer: { warmupSteps: 1000 } } } })
    expect(readJobs(text)).toMatchObject([
      { kind: 'job' },
      { kind: 'warning', line: 9, message: expect.stringMatching(/^spec\.training\.optimizer\.warmupSteps: /) },
    ])
  })

  it('has a smallest number of workers from which no smaller gang can be made', () => {
    const elastic = (replicas: number, minReplicas: number) =>
      warningsOf(
        specOf({ workers: { replicas, minReplicas }, checkpoint: { volume: { nfs: { server: 'a', path: '/' } } } }),
      )
    expect(elastic(4, 3)).toMatchObject([{ path: 'spec.workers.minReplicas' }])
    expect(elastic(4, 2)).toEqual([])
    expect(elastic(4, 4)).toEqual([])
  })
})

describe('no warning', () => {
  it('is about the defaults, about a preset, or about an example', () => {
    expect(warningsOf(specOf({}))).toEqual([])
    expect(warningsOf(specOf({ training: { steps: 1 } }))).toEqual([])
    for (const preset of Object.keys(PRESETS)) expect(warningsOf(specOf({ model: { preset } }))).toEqual([])
    for (const file of globSync('examples/*.yaml'))
      expect(readJobs(readFileSync(file, 'utf8')).filter(({ kind }) => kind === 'warning')).toEqual([])
  })
})

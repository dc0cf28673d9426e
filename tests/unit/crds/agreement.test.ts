// Tests that every program refuses a job with the same words, and that each rule is written in one
// file.

import { globSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { readJobs } from '../../../cli/job-file.ts'
import { ENV } from '../../../crds/contract.ts'
import { backendOf, worldSizeOf } from '../../../crds/ranks.ts'
import { brokenRules, RULES } from '../../../crds/rules.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { readConfig } from '../../../worker/config.ts'
import { WorkerFailure } from '../../../worker/failure.ts'
import { RULE_CASES, yamlOf } from '../../support/api/crd-cases.ts'

const JobFile = z.object({ metadata: z.object({ name: z.string() }), spec: z.unknown() })

/** The cases in which all values keep their bounds; a worker refuses the others before any rule. */
const JOBS = RULE_CASES.flatMap(({ name, spec: written, job, says }) => {
  const text = yamlOf({ spec: written, ...(job !== undefined && { job }) })
  const file = JobFile.parse(parse(text))
  const spec = ScMoEJobSpec.safeParse(file.spec)
  return spec.success ? [{ name, text, jobName: file.metadata.name, spec: spec.data, says }] : []
})

const withoutPrefix = (lines: readonly string[]) => lines.map(line => line.replace(': Invalid value', '')).toSorted()

/** The lines with which a worker refuses the job. */
function workerRefusal(spec: ScMoEJobSpec, jobName: string): string[] {
  try {
    readConfig({
      [ENV.jobName]: jobName,
      [ENV.jobUid]: 'uid',
      [ENV.rank]: '0',
      [ENV.worldSize]: String(worldSizeOf(spec)),
      [ENV.backend]: backendOf(spec),
      [ENV.rendezvous]: 'localhost:29500',
      [ENV.secret]: 'a-random-text-of-32-characters...',
      [ENV.spec]: JSON.stringify(spec),
    })
    return []
  } catch (error) {
    if (!(error instanceof WorkerFailure)) throw error
    expect(error.reason).toBe('badConfig')
    return error.message.split('\n').toSorted()
  }
}

describe('a job that a rule refuses', () => {
  // The API server is asked the same in tests/api/crds/refusals.test.ts. Seen failing for every
  // case when worker/config.ts had a list of its own. It took 35 of these jobs, among them a DGMoE
  // of one expert, rotations of an odd head, and slots that the model does not have.
  it.each(JOBS)('gets the same words from validate, the worker and brokenRules: $name', job => {
    const expected = withoutPrefix(job.says)
    const validated = readJobs(job.text).flatMap(each => (each.kind === 'error' ? [each.message] : []))
    expect(withoutPrefix(validated)).toEqual(expected)
    const broken = brokenRules(job.spec, job.jobName).map(({ field, message }) => `${field}: ${message}`)
    expect(broken.toSorted()).toEqual(expected)
    expect(workerRefusal(job.spec, job.jobName)).toEqual(expected)
  })

  it('is among the cases for every field that a rule is about', () => {
    const broken = new Set(JOBS.flatMap(job => brokenRules(job.spec, job.jobName).map(({ field }) => field)))
    expect(broken).toEqual(new Set(RULES.map(({ field }) => field)))
  })
})

describe('the sources', () => {
  // A second copy drifts: copies that were in worker/ and cli/ took jobs that the API server
  // refuses, and named values that the job does not have. Pages and tests may quote a rule.
  const sources = globSync(
    ['bench', 'cli', 'crds', 'operator', 'tools', 'worker'].map(folder => `${folder}/**/*.ts`),
  ).map(path => ({ path, text: readFileSync(path, 'utf8') }))
  const filesWith = (says: (text: string) => boolean) =>
    sources.filter(({ text }) => says(text)).map(({ path }) => path)

  it('compare topK with experts in one file', () => {
    const needed = String.raw`\b(topK|expertsPerToken)\b`
    const comparison = String.raw`[^\n,;]{0,40}\s[<>]=?\s[^\n,;]{0,40}`
    const stated = new RegExp(`${needed}${comparison}experts\\b|experts\\b${comparison}${needed}`)
    expect(filesWith(text => stated.test(text))).toEqual(['crds/rules.ts'])
  })

  it.each(RULES.map(({ field, message }) => ({ field, message })))('say once: $field, $message', ({ message }) => {
    const longest = message.split(/\{\w+\}|\d+/).toSorted((a, b) => b.length - a.length)[0] ?? ''
    expect(longest.length).toBeGreaterThan(10)
    const template = longest.replaceAll("'", "\\'")
    expect(filesWith(text => text.includes(longest) || text.includes(template))).toEqual(['crds/rules.ts'])
  })
})

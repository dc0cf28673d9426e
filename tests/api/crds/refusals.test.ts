// Tests that a real API server refuses a job with the lines that `scmoe validate` prints.

import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readJobs } from '../../../cli/job-file.ts'
import { CASES, yamlOf } from '../../support/api/crd-cases.ts'
import { Server } from '../../support/api/crd-server.ts'

let server: Server
beforeAll(async () => {
  server = await Server.start({ crd: true })
})
afterAll(() => server?.stop())

const ours = (text: string) => readJobs(text).flatMap(finding => (finding.kind === 'error' ? [finding.message] : []))

describe('a real API server', () => {
  it.each(CASES)('refuses $name with this message', async ({ spec, job, says }) => {
    const answers = await server.refusals(yamlOf({ spec, ...(job !== undefined && { job }) }))
    // If there are unknown fields, the API server reports nothing else.
    const unknown = says.filter(line => line.startsWith('unknown field'))
    expect(answers.toSorted()).toEqual((unknown.length > 0 ? unknown : says).toSorted())
  })

  it('takes the smallest job', async () => {
    expect(await server.refusals(yamlOf({ spec: '' }))).toEqual([])
  })

  it('takes a null for a field that was left out, as `scmoe validate` does', async () => {
    const text = yamlOf({ spec: 'model: {topK: null, heads: null}\n  workers: null' })
    expect(await server.refusals(text)).toEqual([])
    expect(ours(text)).toEqual([])
  })

  it.each([
    ['no name', 'apiVersion: scmoe.dev/v1alpha1\nkind: ScMoEJob\nmetadata: {}\nspec: {training: {steps: 1}}\n'],
    ['no spec', 'apiVersion: scmoe.dev/v1alpha1\nkind: ScMoEJob\nmetadata: {name: a}\n'],
    [
      'unknown metadata',
      'apiVersion: scmoe.dev/v1alpha1\nkind: ScMoEJob\nmetadata: {name: a, anotations: {}}\nspec: {training: {steps: 1}}\n',
    ],
    [
      'an unknown field beside spec',
      'apiVersion: scmoe.dev/v1alpha1\nkind: ScMoEJob\nmetadata: {name: a}\nspc: {}\nspec: {training: {steps: 1}}\n',
    ],
  ])('and `scmoe validate` agree about %s', async (_, text) => {
    expect(await server.refusals(text)).toEqual(ours(text))
  })

  it('and `scmoe validate` agree about jobs of random numbers', async () => {
    const jobs = fc.record({
      model: fc.record(
        {
          preset: fc.constantFrom('tiny', 'gpt2-moe-small', 'gpt2-moe-medium', 'gpt3-moe-xl', 'llama2-moe'),
          kind: fc.constantFrom('Dense', 'Top1', 'Top2', 'SharedExpert', 'ScMoE', 'DGMoE'),
          shortcutPosition: fc.option(fc.constantFrom(1, 2, 3)),
          coefficientGate: fc.option(fc.constantFrom('DirectAdd', 'CG1', 'CG2')),
          blocks: fc.option(fc.integer({ min: 0, max: 6 })),
          moeLayerFrequency: fc.integer({ min: 0, max: 3 }),
          hiddenSize: fc.constantFrom(32, 60, 64),
          heads: fc.option(fc.constantFrom(0, 1, 3, 4)),
          keyValueHeads: fc.integer({ min: 0, max: 4 }),
          positions: fc.constantFrom('Learned', 'RoPE'),
          experts: fc.integer({ min: 0, max: 9 }),
          topK: fc.option(fc.integer({ min: 0, max: 3 })),
          capacityFactor: fc.constantFrom('2', '0', 'none', null),
        },
        { requiredKeys: [] },
      ),
      training: fc.record({
        steps: fc.constant(1),
        globalBatchSequences: fc.integer({ min: 1, max: 12 }),
        microBatches: fc.integer({ min: 0, max: 3 }),
      }),
      data: fc.constantFrom(
        { builtin: 'sotu' },
        { builtin: 'sotu', tokens: 'uint32' },
        { path: '/a', tokens: 'uint16' },
      ),
      workers: fc.record({ replicas: fc.integer({ min: 0, max: 5 }) }),
      parallelism: fc.record({ expertParallelSize: fc.option(fc.integer({ min: 0, max: 5 })) }),
      overlap: fc.record({
        strategy: fc.constantFrom('Auto', 'Sequential', 'Pipelined', 'Shortcut'),
        slot: fc.option(fc.integer({ min: 0, max: 6 })),
        chunks: fc.option(fc.constantFrom(1, 2, 8)),
      }),
    })
    for (const spec of fc.sample(jobs, { numRuns: 150, seed: 1 })) {
      const text = JSON.stringify({
        apiVersion: 'scmoe.dev/v1alpha1',
        kind: 'ScMoEJob',
        metadata: { name: 'random' },
        spec,
      })
      expect({ text, says: (await server.refusals(text)).toSorted() }).toEqual({ text, says: ours(text).toSorted() })
    }
  })
})

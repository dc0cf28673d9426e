// Tests that a real API server takes the CRD and the jobs of the examples, and fills in the
// defaults.

import { globSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { checkJob } from '../../../cli/job-file.ts'
import { COLUMNS } from '../../../crds/definition/definition.ts'
import { OpenApi, podSchemas } from '../../../crds/definition/pod-template.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { yamlOf } from '../../support/api/crd-cases.ts'
import { Server } from '../../support/api/crd-server.ts'

const EXAMPLES = globSync('examples/*.yaml')
const Stored = z.object({ metadata: z.object({ name: z.string() }), spec: z.record(z.string(), z.unknown()) })

let server: Server
beforeAll(async () => {
  server = await Server.start({ crd: true })
})
afterAll(() => server?.stop())

async function stored(name: string) {
  return Stored.parse(JSON.parse(await server.must('get', 'scmoejob', name, '--output', 'json')))
}

describe('the CRD on a real API server', () => {
  it('is established, with names, scale and status', async () => {
    const Crd = z.object({
      status: z.object({ conditions: z.array(z.object({ type: z.string(), status: z.string() })) }),
    })
    const crd = Crd.parse(JSON.parse(await server.must('get', 'crd', 'scmoejobs.scmoe.dev', '--output', 'json')))
    const truths = crd.status.conditions.filter(({ status }) => status === 'True').map(({ type }) => type)
    // KubernetesAPIApprovalPolicyConformant is only for groups of Kubernetes itself, and
    // NonStructuralSchema would mean an error.
    expect(truths.toSorted()).toEqual(['Established', 'NamesAccepted'])
    expect(await server.must('api-resources', '--api-group', 'scmoe.dev', '--no-headers')).toMatch(
      /^scmoejobs +scmoe +scmoe.dev\/v1alpha1 +true +ScMoEJob/,
    )
  })

  it('can be applied again by client-side apply, whose annotation holds the whole of it', async () => {
    expect(await server.must('apply', '--filename', 'crds/scmoejob.yaml')).toContain('unchanged')
  })

  it('carries the pod template of this API server', async () => {
    const api = OpenApi.parse(JSON.parse(await server.must('get', '--raw', '/openapi/v3/api/v1')))
    const file: unknown = JSON.parse(readFileSync('crds/definition/pod-template.generated.json', 'utf8'))
    expect(podSchemas(api)).toEqual(file)
  })

  it.each(EXAMPLES)('takes %s and fills in the defaults that zod and `scmoe validate` fill in', async file => {
    await server.must('apply', '--filename', file)
    const documents = parseAllDocuments(readFileSync(file, 'utf8')).map(document =>
      z.record(z.string(), z.unknown()).parse(document.toJS()),
    )
    const job = documents.find(({ kind }) => kind === 'ScMoEJob') ?? {}
    const checked = checkJob(job)
    if (Array.isArray(checked)) throw new Error(JSON.stringify(checked))
    const { spec } = await stored(checked.name)
    expect(spec).toEqual(checked.object['spec'])
    expect(spec).toEqual(ScMoEJobSpec.parse(job['spec']))
  })

  // Broken once by a default on model.blocks: it came back as 4.
  it('fills in nothing that a preset decides, also when the job is applied again', async () => {
    const file = server.file(yamlOf({ spec: 'model: {preset: llama2-moe, capacityFactor: none}', job: 'preset' }))
    await server.must('apply', '--filename', file)
    expect(await server.must('apply', '--filename', file)).toContain('unchanged')
    const { spec } = await stored('preset')
    expect(spec['model']).toEqual({
      preset: 'llama2-moe',
      capacityFactor: 'none',
      kind: 'ScMoE',
      balanceLossCoefficient: '0.01',
      routerZLossCoefficient: '0',
    })
  })

  it('shows state, speed and overlap in kubectl get, more with --output wide', async () => {
    await server.create('columns')
    const status = {
      state: 'Running',
      reason: 'AllWorkersReady',
      restarts: 1,
      workers: { desired: 2, ready: 2, active: 2, succeeded: 0, failed: 0, selector: 'scmoe.dev/job-uid=x' },
      progress: { step: 42, totalSteps: 100, percent: 42, lossMilli: 2345, estimatedRemainingSeconds: 531 },
      throughput: {
        tokensPerSecond: 4120,
        overlapPercent: 97,
        stepTimeMilliseconds: 250,
        schedule: 'shortcut K=3',
        observedTime: '2026-01-01T00:00:00Z',
      },
      lastCheckpoint: { step: 40 },
    }
    await server.must(
      'patch',
      'scmoejob',
      'columns',
      '--subresource=status',
      '--type=merge',
      '--patch',
      JSON.stringify({ status }),
    )
    const rows = (await server.must('get', 'scmoe', 'columns', '--output', 'wide'))
      .trimEnd()
      .split('\n')
      .map(line => line.split(/ {2,}/).map(cell => cell.trim()))
    expect(rows[0]).toEqual(['NAME', ...COLUMNS.map(({ name }) => name.toUpperCase())])
    expect(rows[1]?.toSpliced(9, 1)).toEqual([
      'columns',
      'Running',
      '2',
      '1',
      '42',
      '4120',
      '97',
      '531',
      '1',
      '10',
      '2345',
      '250',
      'shortcut K=3',
      '40',
      'AllWorkersReady',
    ])
    const narrow = (await server.must('get', 'scmoejobs', 'columns'))
      .split('\n')[0]
      ?.split(/ {2,}/)
      .map(cell => cell.trim())
    expect(narrow).toEqual(['NAME', 'STATE', 'READY', 'WORKERS', 'STEP', 'TOK/S', 'OVERLAP', 'ETA', 'RESTARTS', 'AGE'])
  })

  it('refuses a status that the operator must not write', async () => {
    const { ok, error } = await server.kubectl(
      'patch',
      'scmoejob',
      'columns',
      '--subresource=status',
      '--type=merge',
      '--patch',
      '{"status":{"state":"Happy"}}',
    )
    expect(ok).toBe(false)
    expect(error).toContain('status.state: Unsupported value: "Happy"')
  })

  it('explains its fields', async () => {
    expect(await server.must('explain', 'scmoejob.spec.model.capacityFactor')).toContain('further tokens are dropped')
  })
})

// Test of a thousand malformed manifests, generated from the schema of the CRD. Each is refused
// with the name of the field, or is a job that the operator handles.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parse } from 'yaml'
import { API_VERSION, CONTROLLER, KIND } from '../../../crds/contract.ts'
import { isCode } from '../../../operator/api/errors.ts'
import { isRecord, type Json } from '../../../operator/objects/json.ts'
import { pathOf } from '../../../operator/objects/wire.ts'
import { Api, type Namespace, Operator, type StoredJob, waitFor } from '../../support/api/operator.ts'
import { FaultProxy, isAct } from '../../support/api/proxy.ts'

const MANIFESTS = process.env['SCMOE_SOAK'] ? 5000 : 1000
const SEED = Number(process.env['SCMOE_FUZZ_SEED'] ?? Date.now() % 1_000_000)
const folder = mkdtempSync(join(tmpdir(), 'scmoe-fuzz-'))

let api: Api
let proxy: FaultProxy
let operator: Operator
let ns: Namespace

beforeAll(async () => {
  api = await Api.start()
  proxy = await FaultProxy.start(api.kubeconfig, join(folder, 'kubeconfig'))
  operator = await Operator.start(join(folder, 'kubeconfig'))
  ns = await api.namespace()
})
afterAll(async () => {
  await operator?.stop()
  await proxy?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true })
})

type Place = { path: string[]; type: string }

/**
 * Every field that the schema has below `spec`. Deep fields of the pod template are left out,
 * because they are those of Kubernetes.
 */
function places(schema: Json, path: string[] = []): Place[] {
  const type = typeof schema['type'] === 'string' ? schema['type'] : 'any'
  const here = path.length === 0 ? [] : [{ path, type }]
  const properties = isRecord(schema['properties']) && path.length < 6 ? Object.entries(schema['properties']) : []
  return [...here, ...properties.flatMap(([name, below]) => (isRecord(below) ? places(below, [...path, name]) : []))]
}

const crd: { spec: { versions: { schema: { openAPIV3Schema: { properties: { spec: Json } } } }[] } } = parse(
  readFileSync('crds/scmoejob.yaml', 'utf8'),
)
const PLACES = places(crd.spec.versions[0]?.schema.openAPIV3Schema.properties.spec ?? {})

/** Most of these values are wrong for most fields. No number makes a gang of more than 8. */
const value = fc.oneof(
  fc.constantFrom(
    null,
    true,
    false,
    '',
    ' ',
    '0',
    '-1',
    '1e999',
    'NaN',
    '../../..',
    'ScMoE',
    'Auto',
    'x'.repeat(20_000),
    '\u0000',
    '\u{1F4A5}',
    '${{x}}',
    'a\nb',
  ),
  fc.constantFrom(-1, 0, 1, 2, 3, 8, 1.5, 2 ** 31, -(2 ** 53), 1e300),
  fc.constantFrom<unknown>([], {}, [[]], [null], { '': '' }, [{ name: 'x' }, { name: 'x' }], { a: { b: { c: {} } } }),
  fc.string({ unit: 'binary', maxLength: 40 }),
)
const change = fc.record({
  place: fc.constantFrom(...PLACES),
  value,
  how: fc.constantFrom('set', 'set', 'set', 'unknown'),
})
const manifest = fc.array(change, { minLength: 1, maxLength: 4 }).map(changes => {
  const spec: Record<string, unknown> = { training: { steps: 100 }, workers: { replicas: 1 } }
  for (const { place, value: given, how } of changes) {
    const path = how === 'set' ? place.path : [...place.path.slice(0, -1), `${place.path.at(-1)}x`]
    let at = spec
    for (const name of path.slice(0, -1)) {
      const next = at[name]
      const below: Record<string, unknown> = isRecord(next) ? next : {}
      at[name] = below
      at = below
    }
    // A copy, because a later change may put something into the value.
    at[path.at(-1) ?? ''] = structuredClone(given)
  }
  return spec
})

/** Creates a job. Returns the server's objection, undefined if it accepted the job. */
async function create(name: string, spec: object): Promise<string | undefined> {
  const body = { apiVersion: API_VERSION, kind: KIND, metadata: { name, namespace: ns.name }, spec }
  try {
    await api.kube.call({
      method: 'POST',
      path: pathOf('ScMoEJob', ns.name),
      query: { fieldValidation: 'Strict' },
      body,
    })
    return undefined
  } catch (error) {
    if (isCode(error, 400, 422)) return error.message
    throw error
  }
}

it(`${MANIFESTS} manifests fuzzed from the schema are refused by name of the field, or run; the operator neither fails nor storms`, {
  timeout: 300_000,
}, async () => {
  console.log(`seed ${SEED}`)
  const manifests = fc.sample(manifest, { numRuns: MANIFESTS, seed: SEED })
  const vague: string[] = []
  let refused = 0
  for (const [i, spec] of manifests.entries()) {
    const words = await create(`fuzz-${i}`, spec)
    if (words === undefined) continue
    refused++
    if (!/spec\.|spec:|unknown field|metadata\.name/.test(words))
      vague.push(`${JSON.stringify(spec).slice(0, 300)}: ${words.slice(0, 300)}`)
  }
  expect(vague).toEqual([])
  expect(refused).toBeGreaterThan(MANIFESTS / 2)
  expect(refused).toBeLessThan(MANIFESTS)

  const accepted = await ns.list<StoredJob>('ScMoEJob')
  const silent = async () =>
    (await ns.list<StoredJob>('ScMoEJob')).filter(
      ({ spec, status }) => spec['managedBy'] === CONTROLLER && status?.state === undefined,
    )
  // If some jobs stay without a status, their specs are shown. The printed seed repeats the test.
  await waitFor('a status of every job that was taken', async () => (await silent()).length === 0).catch(async () =>
    expect((await silent()).map(({ spec }) => spec)).toEqual([]),
  )
  expect(operator.child.exitCode).toBeNull()
  expect(await operator.metric('controller_runtime_reconcile_errors_total')).toBe(0)
  // A fuzzed deadline may be one second. Such a gang is created again, and the status counts the
  // new attempt only after its pods exist.
  await waitFor('no more pods than attempts have ranks', async () =>
    (await ns.list<StoredJob>('ScMoEJob')).every(({ metadata: { name }, spec, status }) => {
      const made = proxy.created.filter(each => each.startsWith(`${name}-worker-`)).length
      return made <= (spec['workers'] as { replicas: number }).replicas * (status?.attempt ?? 1)
    }),
  )
  // A pod template that the server refuses is tried again every 15 s, and not more often.
  const before = proxy.requests.filter(each => isAct(...(each.split(' ') as [string, string]))).length
  await sleep(3000)
  const after = proxy.requests.filter(each => isAct(...(each.split(' ') as [string, string]))).length
  expect(after - before).toBeLessThanOrEqual(2 * accepted.length)
  await ns.createJob('after', { workers: { replicas: 1 } })
  await ns.status('after', ({ state }) => state === 'Starting')
})

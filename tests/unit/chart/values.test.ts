// Tests of the chart's values: each has a description, is refused by its name if it is wrong, and
// has the effect that it names.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseAllDocuments, stringify } from 'yaml'
import { z } from 'zod'
import { parseOptions } from '../../../operator/options.ts'
import { type ChartValue, chartDocs, chartValues } from '../../../tools/chart-docs.ts'
import { helm } from '../../../tools/cluster/helm.ts'

const folder = mkdtempSync(join(tmpdir(), 'scmoe-values-'))
let program = ''
beforeAll(async () => {
  program = await helm('4')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const Manifest = z.looseObject({
  kind: z.string(),
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
})
type Manifest = z.infer<typeof Manifest>

function template(values: object, ...args: string[]) {
  const file = join(folder, 'values.yaml')
  writeFileSync(file, stringify(merged([{ image: { registry: 'registry.example.com/ml' } }, values])))
  const all = ['template', 'scmoe', 'charts/scmoe', '--namespace', 'scmoe-system', '--values', file, ...args]
  return spawnSync(program, all, { encoding: 'utf8', maxBuffer: 2 ** 26 })
}

function manifests(values: object): Manifest[] {
  const { stdout, stderr, status } = template(values)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  const documents = parseAllDocuments(stdout)
  expect(documents.flatMap(({ errors, warnings }) => [...errors, ...warnings])).toEqual([])
  return documents.flatMap(document => (document.contents === null ? [] : [Manifest.parse(document.toJS())]))
}
const ofKind = (list: readonly Manifest[], kind: string) => list.filter(each => each.kind === kind)

/** A wrong value: of another type, or not one of the allowed words. */
function wrong({ schema }: ChartValue): unknown {
  if (schema.enum !== undefined) return 'no-such-word'
  const types = new Set([schema.type].flat())
  return types.has('object') ? 'text' : types.has('array') ? { a: 1 } : types.has('string') ? [1] : 'text'
}

function nested(path: string, value: unknown): object {
  const [last = '', ...rest] = path.split('.').toReversed()
  return rest.reduce<object>((inner, name) => ({ [name]: inner }), { [last]: value })
}

/** All objects merged into one file of values, because Helm reports all problems at once. */
function merged(objects: readonly object[]): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const object of objects)
    for (const [key, value] of Object.entries(object)) {
      const before = result[key]
      const both = typeof before === 'object' && typeof value === 'object' && before !== null && value !== null
      result[key] = both && !Array.isArray(value) ? merged([before, value]) : value
    }
  return result
}

describe('every value of the chart', () => {
  it('is in values.yaml, with a sentence in the schema', () => {
    for (const { path, schema, preset } of chartValues()) {
      expect(preset, `${path} in values.yaml`).toBeDefined()
      expect(schema.description, `description of ${path}`).toMatch(/^\S.*\.$/)
    }
    expect(chartValues().length).toBeGreaterThan(40)
  })

  it('is in docs/chart.md (npm run generate)', () => {
    expect(readFileSync('docs/chart.md', 'utf8')).toBe(chartDocs())
  })

  // Seen failing with "type" taken from a property of the schema.
  it('is refused by its name when it has the wrong type', () => {
    const all = chartValues()
    const { status, stderr } = template(merged(all.map(each => nested(each.path, wrong(each)))))
    expect(status).not.toBe(0)
    for (const { path } of all) expect(stderr).toContain(`'/${path.replaceAll('.', '/')}'`)
  })

  it.each([
    ['a number out of its range', { concurrency: 0 }, "at '/concurrency': minimum: got 0, want 1"],
    ['a Lease too short to renew', { leaderElection: { leaseSeconds: 2 } }, "at '/leaderElection/leaseSeconds'"],
    ['a namespace that can be none', { watchNamespaces: ['Train'] }, "at '/watchNamespaces/0'"],
    ['a namespace twice', { watchNamespaces: ['a', 'a'] }, "at '/watchNamespaces'"],
    ['a digest that is none', { image: { worker: { digest: 'latest' } } }, "at '/image/worker/digest'"],
    ['a share above all', { podDisruptionBudget: { minAvailable: '150%' } }, "at '/podDisruptionBudget/minAvailable'"],
    [
      'an address without its width',
      { networkPolicy: { apiServerCidrs: ['10.0.0.1'] } },
      "'/networkPolicy/apiServerCidrs/0'",
    ],
    ["a label that is the chart's own", { podLabels: { 'app.kubernetes.io/name': 'x' } }, "at '/podLabels/app"],
    ['a field that pods do not have', { affinity: { nodeAfinity: {} } }, "at '/affinity'"],
  ])('refuses %s', (_, values, message) => {
    const { status, stderr } = template(values)
    expect(status).not.toBe(0)
    expect(stderr).toContain(message)
  })
})

const Container = z.looseObject({ args: z.array(z.string()), image: z.string() })
const Pods = z.looseObject({
  metadata: z.looseObject({
    labels: z.record(z.string(), z.string()),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
  spec: z.looseObject({ containers: z.array(Container).min(1), serviceAccountName: z.string() }),
})
function pods(list: readonly Manifest[]): z.infer<typeof Pods> {
  return z.object({ spec: z.looseObject({ template: Pods }) }).parse(ofKind(list, 'Deployment')[0]).spec.template
}
const flagsOf = (list: readonly Manifest[]) => parseOptions(pods(list).spec.containers[0]?.args ?? [])

describe('a value that is set', () => {
  it('reaches the operator as the flag it is', () => {
    const list = manifests({
      concurrency: 16,
      clientConnection: { qps: 50, burst: 200 },
      leaderElection: { leaseSeconds: 30 },
      image: { worker: { repository: 'example.com/worker', digest: `sha256:${'a'.repeat(64)}` } },
    })
    expect(flagsOf(list)).toMatchObject({
      concurrency: 16,
      apiWritesPerSecond: 50,
      apiWritesAtOnce: 200,
      leaseSeconds: 30,
      workerImage: `example.com/worker@sha256:${'a'.repeat(64)}`,
    })
    expect(flagsOf(manifests({}))).toMatchObject({ concurrency: 8, apiWritesPerSecond: 0, leaseSeconds: 15 })
  })

  it('reaches its pods', () => {
    const set = {
      affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [] } },
      topologySpreadConstraints: [{ maxSkew: 1, topologyKey: 'zone', whenUnsatisfiable: 'DoNotSchedule' }],
      terminationGracePeriodSeconds: 5,
    }
    const mount = { name: 'ca', mountPath: '/ca' }
    const volume = { name: 'ca', configMap: { name: 'ca' } }
    const more = { podLabels: { team: 'a' }, podAnnotations: { note: 'b' } }
    const list = manifests({ ...set, ...more, extraVolumes: [volume], extraVolumeMounts: [mount] })
    const { metadata, spec } = pods(list)
    expect(spec).toMatchObject({ ...set, volumes: [volume], containers: [{ volumeMounts: [mount] }] })
    expect(metadata.labels).toMatchObject({ team: 'a', 'app.kubernetes.io/name': 'scmoe' })
    expect(metadata.annotations).toEqual({ note: 'b' })
  })

  it('names and marks every object', () => {
    const enabled = { enabled: true }
    const list = manifests({
      fullnameOverride: 'moe',
      commonLabels: { team: 'a' },
      commonAnnotations: { owner: 'b' },
      podDisruptionBudget: enabled,
      networkPolicy: enabled,
      serviceMonitor: enabled,
      podMonitor: enabled,
      prometheusRule: enabled,
      grafanaDashboard: enabled,
    })
    // The CRD is the same for all releases, and objects of a test are deleted when the test ends.
    const ours = list.filter(
      ({ kind, metadata }) =>
        kind !== 'CustomResourceDefinition' && metadata.annotations?.['helm.sh/hook'] === undefined,
    )
    expect(ours.length).toBeGreaterThan(12)
    for (const { kind, metadata } of ours) {
      expect(metadata.name, kind).toMatch(/^moe(-|$)/)
      expect(metadata, kind).toMatchObject({ labels: { team: 'a' }, annotations: { owner: 'b' } })
    }
    expect(ofKind(manifests({ nameOverride: 'train' }), 'Deployment')[0]?.metadata.name).toBe('scmoe-train')
  })

  it('brings a budget, a network policy, roles and an account, or leaves them out', () => {
    const all = manifests({
      podDisruptionBudget: { enabled: true, minAvailable: '50%' },
      networkPolicy: { enabled: true, apiServerCidrs: ['10.0.0.1/32'], apiServerPorts: [6443] },
      serviceAccount: { create: false, name: 'own' },
      userRoles: { create: false },
    })
    const list = all.filter(({ metadata }) => metadata.annotations?.['helm.sh/hook'] === undefined)
    expect(ofKind(list, 'PodDisruptionBudget')[0]).toMatchObject({ spec: { minAvailable: '50%' } })
    expect(ofKind(list, 'NetworkPolicy')[0]).toMatchObject({
      spec: {
        ingress: [{ ports: [{ port: 'metrics' }] }, { ports: [{ port: 'health' }] }],
        egress: expect.arrayContaining([{ ports: [{ port: 6443 }], to: [{ ipBlock: { cidr: '10.0.0.1/32' } }] }]),
      },
    })
    expect(ofKind(list, 'ServiceAccount')).toEqual([])
    expect(pods(list).spec.serviceAccountName).toBe('own')
    const bound = [...ofKind(list, 'ClusterRoleBinding'), ...ofKind(list, 'RoleBinding')]
    expect(bound.map(each => each['subjects'])).toEqual(
      bound.map(() => [{ kind: 'ServiceAccount', name: 'own', namespace: 'scmoe-system' }]),
    )
    expect(ofKind(list, 'ClusterRole').map(({ metadata }) => metadata.name)).toEqual(['scmoe'])
  })
})

describe('the images', () => {
  const images = (values: object) => {
    const list = manifests(values)
    return { operator: pods(list).spec.containers[0]?.image, ...flagsOf(list) }
  }

  it('come from the one registry that is named, by tag or by digest', () => {
    const digest = `sha256:${'b'.repeat(64)}`
    expect(images({ image: { operator: { digest } } })).toMatchObject({
      operator: `registry.example.com/ml/operator@${digest}`,
      workerImage: 'registry.example.com/ml/worker:0.1.0',
      gpuWorkerImage: 'registry.example.com/ml/worker-gpu:0.1.0',
    })
  })

  // Seen failing with the repository scmoe/operator, which anybody may own in a public registry.
  it.each([
    ['operator', { image: { registry: '' } }],
    ['worker', { image: { registry: '', operator: { repository: 'r.example.com/operator' } } }],
  ])('are in no registry of ours: without one for the %s the chart says how to build and push', (name, values) => {
    const file = join(folder, 'none.yaml')
    writeFileSync(file, stringify(values))
    const all = ['template', 'scmoe', 'charts/scmoe', '--values', file]
    const { status, stderr } = spawnSync(program, all, { encoding: 'utf8' })
    expect(status).not.toBe(0)
    expect(stderr).toContain(`image.registry and image.${name}.repository are empty`)
    expect(stderr).toContain('npx node tools/images/main.ts --push REGISTRY')
  })
})

describe('helm test', () => {
  const hooks = (values: object) =>
    manifests(values).filter(({ metadata }) => metadata.annotations?.['helm.sh/hook'] === 'test')

  it('runs a job where the operator looks, and a pod beside the operator that follows it', () => {
    const placed = hooks({ watchNamespaces: ['train', 'other'] })
    expect(ofKind(placed, 'ScMoEJob')).toMatchObject([{ metadata: { name: 'scmoe-test', namespace: 'train' } }])
    expect(ofKind(placed, 'Pod')[0]).toMatchObject({
      metadata: { name: 'scmoe-test', namespace: 'scmoe-system' },
      spec: { containers: [{ command: ['node', '/app/follow.mjs'], args: ['train/scmoe-test', '300'] }] },
    })
    const placeOf = (values: object) => ofKind(hooks(values), 'ScMoEJob')[0]?.metadata.namespace
    expect(placeOf({})).toBe('scmoe-system')
    expect(placeOf({ test: { namespace: 'quiet' }, watchNamespaces: ['a'] })).toBe('quiet')
  })

  it('follows it with an account of its own, which may read that one job and nothing else', () => {
    const list = hooks({ watchNamespaces: ['train'] })
    expect(ofKind(list, 'Pod')[0]).toMatchObject({ spec: { serviceAccountName: 'scmoe-test' } })
    expect(ofKind(list, 'Role')).toMatchObject([
      {
        metadata: { namespace: 'train' },
        rules: [{ apiGroups: ['scmoe.dev'], resources: ['scmoejobs'], resourceNames: ['scmoe-test'], verbs: ['get'] }],
      },
    ])
    expect(ofKind(list, 'RoleBinding')).toMatchObject([
      { subjects: [{ kind: 'ServiceAccount', name: 'scmoe-test', namespace: 'scmoe-system' }] },
    ])
  })
})

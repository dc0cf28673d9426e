import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { LEADER_ELECTION_RULES, NAMESPACE_RULES, type Rule } from '../../../operator/objects/permissions.ts'
import { helm } from '../../../tools/cluster/helm.ts'
import { run, Server } from '../../support/api/crd-server.ts'

const BUILD_MILLISECONDS = 900_000
const REGISTRY = ['--set', 'image.registry=registry.example.com/ml']
const ACCOUNT = 'system:serviceaccount:scmoe-system:scmoe'

let server: Server
beforeAll(async () => {
  server = await Server.start({ crd: false })
  await server.must('create', 'namespace', 'scmoe-system')
  await server.must(
    'label',
    'namespace',
    'scmoe-system',
    'pod-security.kubernetes.io/enforce=restricted',
    'pod-security.kubernetes.io/warn=restricted',
  )
})
afterAll(() => server?.stop())

const may = async (verb: string, resource: string, namespace: string) =>
  (await server.kubectl('auth', 'can-i', verb, resource, '--namespace', namespace, '--as', ACCOUNT)).ok

const requests = (rules: readonly Rule[]) =>
  rules.flatMap(({ apiGroups, resources, resourceNames, verbs }) =>
    verbs.flatMap(verb =>
      resources.map(resource => {
        const [name = '', sub] = resource.split('/')
        const group = apiGroups[0] === '' ? '' : `.${apiGroups[0]}`
        const object = resourceNames === undefined ? '' : `/${resourceNames[0]}`
        return { verb, resource: `${name}${group}${object}`, args: sub === undefined ? [] : ['--subresource', sub] }
      }),
    ),
  )

async function refusedTo(rules: readonly Rule[], namespace: string) {
  const answers = await Promise.all(
    requests(rules).map(async ({ verb, resource, args }) => {
      const { ok } = await server.kubectl(
        'auth',
        'can-i',
        verb,
        resource,
        ...args,
        '--namespace',
        namespace,
        '--as',
        ACCOUNT,
      )
      return ok ? [] : [`${verb} ${resource}`]
    }),
  )
  return answers.flat()
}

describe.each(['4', '3'] as const)('the chart with Helm %s on a real API server', major => {
  let program = ''
  beforeAll(async () => {
    program = await helm(major)
  }, BUILD_MILLISECONDS)

  async function must(...args: string[]): Promise<string> {
    const { ok, out, error } = await run(program, [
      '--kubeconfig',
      server.kubeconfig,
      '--namespace',
      'scmoe-system',
      ...args,
    ])
    if (!ok) throw new Error(`helm ${args.join(' ')}: ${error}`)
    // Helm prints warnings of the API server, such as about a pod that the namespace would refuse.
    expect(error.split('\n').filter(line => line.includes('would violate') || line.includes('unknown field'))).toEqual(
      [],
    )
    return out
  }

  const specFields = async () => {
    const path = 'jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties}'
    return Object.keys(JSON.parse(await server.must('get', 'crd', 'scmoejobs.scmoe.dev', '--output', path)))
  }

  // scmoe-0.0.1.tgz is the first version of the chart, made with `helm package`.
  it('is upgraded from the first chart, CRD included, with a job that stays as it was', async () => {
    expect(await must('install', 'scmoe', 'tests/api/chart/scmoe-0.0.1.tgz')).toContain(
      'runs ScMoEJobs in all namespaces',
    )
    await server.established()
    await server.create(`early-${major}`, 'workers: {replicas: 2}')
    expect(await specFields()).not.toContain('scheduling')
    await must('upgrade', 'scmoe', 'charts/scmoe', ...REGISTRY, '--set', 'logging.level=debug')
    await expect.poll(specFields, { timeout: 10_000 }).toContain('scheduling')
    expect(
      await server.must('get', 'scmoejob', `early-${major}`, '--output', 'jsonpath={.spec.workers.replicas}'),
    ).toBe('2')
    // The new schema accepts the stored job.
    await server.must('patch', 'scmoejob', `early-${major}`, '--type=merge', '--patch', '{"spec":{"suspend":true}}')
    expect(
      await server.must('get', 'deployment', 'scmoe', '--namespace', 'scmoe-system', '--output', 'yaml'),
    ).toContain('--log-level=debug')
    await server.must('delete', 'scmoejob', `early-${major}`)
  })

  it('runs a pod that a restricted namespace takes', async () => {
    const Deployment = z.object({
      spec: z.object({ template: z.object({ metadata: z.unknown(), spec: z.record(z.string(), z.unknown()) }) }),
    })
    const { spec } = Deployment.parse(
      JSON.parse(await server.must('get', 'deployment', 'scmoe', '--namespace', 'scmoe-system', '--output', 'json')),
    )
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'probe', namespace: 'scmoe-system' },
      spec: spec.template.spec,
    }
    const file = server.file(JSON.stringify(pod))
    expect(await server.must('create', '--dry-run=server', '--filename', file)).toContain('pod/probe created')
  })

  it('lets the operator do what it has to, and nothing beyond', async () => {
    expect(await refusedTo(NAMESPACE_RULES, 'default')).toEqual([])
    expect(await refusedTo(LEADER_ELECTION_RULES, 'scmoe-system')).toEqual([])
    for (const [verb, resource] of [
      ['get', 'secrets'],
      ['get', 'scmoejobs.scmoe.dev'],
      ['update', 'scmoejobs.scmoe.dev'],
      ['update', 'pods'],
      ['update', 'services'],
    ] as const) {
      expect({ verb, resource, allowed: await may(verb, resource, 'default') }).toEqual({
        verb,
        resource,
        allowed: false,
      })
    }
    const exec = ['auth', 'can-i', 'create', 'pods', '--subresource', 'exec', '--as', ACCOUNT]
    expect((await server.kubectl(...exec)).ok).toBe(false)
    expect(await may('create', 'leases.coordination.k8s.io', 'default')).toBe(false)
    expect(await may('update', 'leases.coordination.k8s.io/of-another', 'scmoe-system')).toBe(false)
  })

  it('leaves the CRD and the jobs when it is removed, and takes them over when it comes back', async () => {
    await server.create(`job-${major}`)
    await must('uninstall', 'scmoe')
    expect(await server.must('get', 'scmoejobs')).toContain(`job-${major}`)
    await must('install', 'scmoe', 'charts/scmoe', ...REGISTRY)
    await must('uninstall', 'scmoe')
    await server.must('delete', 'crd', 'scmoejobs.scmoe.dev')
  })
})

import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { beforeAll, describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { z } from 'zod'
import {
  LEADER_ELECTION_RULES,
  NAMESPACE_RULES,
  NETWORK_POLICY_RULES,
  PROVIDER_RULES,
} from '../../../operator/objects/permissions.ts'
import { PROVIDERS } from '../../../operator/objects/providers.ts'
import { parseOptions } from '../../../operator/options.ts'
import { helm } from '../../../tools/cluster/helm.ts'

const CHART = 'charts/scmoe'
const Manifest = z.looseObject({
  kind: z.string(),
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
  }),
})
const Role = Manifest.extend({
  rules: z.array(
    z.strictObject({
      apiGroups: z.array(z.string()),
      resources: z.array(z.string()),
      resourceNames: z.array(z.string()).optional(),
      verbs: z.array(z.string()),
    }),
  ),
})
const Container = z.looseObject({
  name: z.string(),
  image: z.string(),
  args: z.array(z.string()),
  env: z.array(z.unknown()).optional(),
  securityContext: z.unknown(),
})
const Deployment = Manifest.extend({
  spec: z.object({
    replicas: z.int(),
    selector: z.object({ matchLabels: z.record(z.string(), z.string()) }),
    template: z.object({
      metadata: Manifest.shape.metadata.partial(),
      spec: z.looseObject({ containers: z.tuple([Container]) }),
    }),
  }),
})

let program = ''
beforeAll(async () => {
  program = await helm('4')
})

const REGISTRY = ['--set', 'image.registry=registry.example.com/ml']
const render = (...args: string[]) =>
  spawnSync(program, ['template', 'scmoe', CHART, '--namespace', 'scmoe-system', ...REGISTRY, ...args], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  })

function manifests(...args: string[]): z.infer<typeof Manifest>[] {
  const { stdout, stderr, status } = render(...args)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  return parseAllDocuments(stdout).flatMap(document =>
    document.contents === null ? [] : [Manifest.parse(document.toJS())],
  )
}
const ofKind = (kind: string, ...args: string[]) => manifests(...args).filter(manifest => manifest.kind === kind)
const deployment = (...args: string[]) => Deployment.parse(ofKind('Deployment', ...args)[0])
const container = (...args: string[]) => deployment(...args).spec.template.spec.containers[0]

describe('the chart', () => {
  it('passes helm lint --strict', () => {
    expect(execFileSync(program, ['lint', '--strict', CHART, ...REGISTRY], { encoding: 'utf8' })).toContain(
      '0 chart(s) failed',
    )
  })

  it('has the version of the package', () => {
    const { version } = z.object({ version: z.string() }).parse(JSON.parse(readFileSync('package.json', 'utf8')))
    expect(parse(readFileSync(`${CHART}/Chart.yaml`, 'utf8'))).toMatchObject({ version, appVersion: version })
    expect(container().image).toBe(`registry.example.com/ml/operator:${version}`)
  })

  it('installs these objects', () => {
    expect(
      manifests()
        .map(({ kind, metadata }) => `${kind}/${metadata.name}`)
        .toSorted(),
    ).toEqual([
      'ClusterRole/scmoe',
      'ClusterRole/scmoe-edit',
      'ClusterRole/scmoe-view',
      'ClusterRoleBinding/scmoe',
      'CustomResourceDefinition/scmoejobs.scmoe.dev',
      'Deployment/scmoe',
      'Pod/scmoe-test',
      'Role/scmoe-leader-election',
      'Role/scmoe-test',
      'RoleBinding/scmoe-leader-election',
      'RoleBinding/scmoe-test',
      'ScMoEJob/scmoe-test',
      'Service/scmoe-metrics',
      'ServiceAccount/scmoe',
      'ServiceAccount/scmoe-test',
      'ValidatingAdmissionPolicy/scmoe-warnings',
      'ValidatingAdmissionPolicyBinding/scmoe-warnings',
    ])
  })

  it('warns of doubtful jobs, unless told otherwise, and refuses none', () => {
    const binding = ofKind('ValidatingAdmissionPolicyBinding')
    expect(binding).toMatchObject([{ spec: { policyName: 'scmoe-warnings', validationActions: ['Warn'] } }])
    const off = manifests('--set', 'admissionWarnings.enabled=false').map(({ kind }) => kind)
    expect(off.filter(each => each.startsWith('ValidatingAdmission'))).toEqual([])
  })

  it('leaves the CRD alone where told so', () => {
    expect(ofKind('CustomResourceDefinition', '--set', 'crd.install=false')).toEqual([])
  })

  it('gives the operator the rights it asks for, and no others', () => {
    const roles = [...ofKind('ClusterRole'), ...ofKind('Role')].map(role => Role.parse(role))
    const rulesOf = (name: string) => roles.find(({ metadata }) => metadata.name === name)?.rules
    expect(rulesOf('scmoe')).toEqual([...NAMESPACE_RULES, ...NETWORK_POLICY_RULES])
    expect(rulesOf('scmoe-leader-election')).toEqual(LEADER_ELECTION_RULES)
  })

  it.each(PROVIDERS)('starts it with scheduling provider %s and gives it the rights that this one needs', provider => {
    const args = ['--set', `scheduling.provider=${provider}`, '--set', 'scheduling.schedulerName=mine']
    expect(parseOptions(container(...args).args)).toMatchObject({
      schedulingProvider: provider,
      schedulerName: 'mine',
    })
    const role = ofKind('ClusterRole', ...args).find(({ metadata }) => metadata.name === 'scmoe')
    expect(Role.parse(role).rules).toEqual([...NAMESPACE_RULES, ...NETWORK_POLICY_RULES, ...PROVIDER_RULES[provider]])
  })

  it('gives jobs network policies that let in the operator and the named peers, or none', () => {
    const prometheus = { namespaceSelector: { matchLabels: { team: 'monitoring' } } }
    const args = ['--set-json', `jobs.networkPolicy.reportReaders=${JSON.stringify([prometheus])}`]
    const { matchLabels } = deployment().spec.selector
    const operator = {
      namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'scmoe-system' } },
      podSelector: { matchLabels },
    }
    expect(parseOptions(container(...args).args)).toMatchObject({
      networkPolicies: true,
      reportReaders: [operator, prometheus],
      restrictTemplates: false,
    })
    const scraped = parseOptions(container('--set', 'podMonitor.enabled=true').args)
    expect(scraped, 'a Prometheus that is somewhere').toMatchObject({ networkPolicies: true, reportReaders: [] })
    const off = ['--set', 'jobs.networkPolicy.enabled=false', '--set', 'jobs.restrictTemplates=true']
    expect(parseOptions(container(...off).args)).toMatchObject({ networkPolicies: false, restrictTemplates: true })
    const role = ofKind('ClusterRole', ...off).find(({ metadata }) => metadata.name === 'scmoe')
    expect(Role.parse(role).rules).toEqual(NAMESPACE_RULES)
  })

  it('gives them in the watched namespaces alone', () => {
    const args = ['--set', 'watchNamespaces={a,b}']
    expect(ofKind('ClusterRoleBinding', ...args)).toEqual([])
    const bindings = ofKind('RoleBinding', ...args).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)
    expect(bindings).toEqual(['a/scmoe', 'b/scmoe', 'scmoe-system/scmoe-leader-election', 'a/scmoe-test'])
    expect(parseOptions(container(...args).args)).toMatchObject({ watchNamespaces: ['a', 'b'] })
  })

  it('starts the operator with flags that it has, and that say what the values say', () => {
    expect(parseOptions(container().args)).toMatchObject({
      workerImage: 'registry.example.com/ml/worker:0.1.0',
      gpuWorkerImage: 'registry.example.com/ml/worker-gpu:0.1.0',
      leaderElect: true,
      leaderElectionNamespace: 'scmoe-system',
      logLevel: 'info',
      schedulingProvider: 'none',
      watchNamespaces: [],
      metricsPort: 8080,
      healthPort: 8081,
    })
    const values = [
      'image.worker.repository=example.com/worker',
      'image.worker.tag=v2',
      'image.gpuWorker.repository=example.com/gpu',
      'logging.level=debug',
      'leaderElection.enabled=false',
    ]
    const args = values.flatMap(value => ['--set', value])
    expect(parseOptions(container(...args).args)).toMatchObject({
      workerImage: 'example.com/worker:v2',
      gpuWorkerImage: 'example.com/gpu:0.1.0',
      leaderElect: false,
      logLevel: 'debug',
    })
    expect(ofKind('Role', ...args).map(({ metadata }) => metadata.name)).toEqual(['scmoe-test'])
  })

  it('runs it as nobody, with nothing to write to and no capabilities', () => {
    expect(deployment().spec.template.spec).toMatchObject({
      securityContext: { runAsNonRoot: true, runAsUser: 65_532, seccompProfile: { type: 'RuntimeDefault' } },
    })
    expect(container().securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
  })

  it('selects its own pods, whose labels do not change with the version', () => {
    const { selector, template } = deployment().spec
    expect(template.metadata.labels).toMatchObject(selector.matchLabels)
    expect(Object.keys(selector.matchLabels)).not.toContain('app.kubernetes.io/version')
  })

  it('passes on where to run, with what, and more variables', () => {
    const values = [
      'nodeSelector.disk=ssd',
      'tolerations[0].key=a',
      'priorityClassName=high',
      'extraEnv[0].name=SCMOE_CONCURRENCY',
      'imagePullSecrets[0].name=pull',
    ]
    const args = [
      ...values.flatMap(value => ['--set', value]),
      '--set-string',
      'extraEnv[0].value=16',
      '--set',
      'replicas=2',
    ]
    expect(deployment(...args).spec).toMatchObject({
      replicas: 2,
      template: {
        spec: {
          nodeSelector: { disk: 'ssd' },
          tolerations: [{ key: 'a' }],
          priorityClassName: 'high',
          imagePullSecrets: [{ name: 'pull' }],
        },
      },
    })
    expect(container(...args).env).toEqual([{ name: 'SCMOE_CONCURRENCY', value: '16' }])
  })

  it('names its objects after the release', () => {
    const { stdout } = spawnSync(program, ['template', 'first', CHART, '--namespace', 'x', ...REGISTRY], {
      encoding: 'utf8',
      maxBuffer: 2 ** 26,
    })
    expect(stdout).toContain('name: first-scmoe-metrics')
  })

  it.each([
    ['a value that it does not have', 'replica=2', "additional properties 'replica' not allowed"],
    ['a provider that is none', 'scheduling.provider=yunikorn', '/scheduling/provider'],
    ['an unknown log level', 'logging.level=loud', '/logging/level'],
    ['several replicas without leader election', 'replicas=2,leaderElection.enabled=false', '/leaderElection/enabled'],
    ['a pull policy that is none', 'image.operator.pullPolicy=Sometimes', '/image/operator/pullPolicy'],
  ])('refuses %s', (_, value, message) => {
    const { status, stderr } = render('--set', value)
    expect(status).not.toBe(0)
    expect(stderr).toContain(message)
  })
})

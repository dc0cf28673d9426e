// Tests the life of the chart on a real cluster while a job trains: installation, upgrades with
// Helm 3 and 4 that replace the operator, `helm test`, removal and return. The same job serves the
// commands that need a kubelet, logs and trace. The upgrade from the first chart is tested in
// tests/api/chart/upgrade.test.ts, because the operator of that chart can no longer be built.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { helm } from '../../tools/cluster/helm.ts'
import { ROOT, SYSTEM_NAMESPACE } from '../../tools/install.ts'
import { run } from '../../tools/process.ts'
import { manifest, NAMESPACE, startWorld, status, until, type World, workerPid } from '../support/node.ts'
import { REGISTRY, type Registry, startRegistry } from '../support/registry.ts'

const CHART = join(ROOT, 'charts', 'scmoe')
const BUILD_MILLISECONDS = 900_000

const folder = mkdtempSync(join(tmpdir(), 'scmoe-chart-'))
let world: World
let registry: Registry
/** The flags of the helm command that `tools/images/main.ts --push` prints. */
let images: string[] = []
const programs = { '3': '', '4': '' }

beforeAll(async () => {
  for (const major of ['3', '4'] as const) programs[major] = await helm(major, line => console.log(line))
  world = await startWorld({ chart: false, images: false })
  registry = await startRegistry(world.cluster)
}, BUILD_MILLISECONDS)
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true })
  await registry?.stop()
  await world?.down()
})

async function helmDoes(major: '3' | '4', ...args: string[]): Promise<string> {
  const all = [...args, '--namespace', SYSTEM_NAMESPACE, '--timeout', '120s']
  return run(programs[major], all, { ...process.env, KUBECONFIG: world.cluster.kubeconfig })
}
const scmoe = async (...args: string[]) =>
  run(join(ROOT, 'cli', 'scmoe.sh'), [...args, '--namespace', NAMESPACE], {
    ...process.env,
    KUBECONFIG: world.cluster.kubeconfig,
  })

/** The names, UIDs and restarts of the job's pods. */
async function pods(): Promise<string> {
  const columns =
    'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{"\\n"}{end}'
  return world.kubectl('get', 'pods', '-n', NAMESPACE, '-l', 'scmoe.dev/job-name=long', '-o', columns)
}

/** Waits until the running operator reports a later step. */
async function advances(): Promise<void> {
  const { progress } = await status(world.kubectl, 'long')
  await until(world.kubectl, 'long', s => (s.progress?.step ?? 0) > (progress?.step ?? 0))
}

/** Runs `tools/images/main.ts` in the network of the node. */
async function imagesCommand(...args: string[]): Promise<string> {
  const [command, ...words] = [...world.cluster.enter, process.execPath, join(ROOT, 'tools/images/main.ts')]
  return run(command, [...words, ...args])
}

describe('the images', () => {
  it('are pushed to a registry, which is named with the digests in the command that installs them', async () => {
    const printed = await imagesCommand('--push', `${REGISTRY}/ml`, '--plain-http')
    const line = /^ {4}(helm upgrade --install scmoe charts\/scmoe [^]*)$/m.exec(printed)?.[1] ?? ''
    images = line
      .replaceAll('\\\n', ' ')
      .split(/\s+/)
      .flatMap(word => (word.startsWith('image.') ? ['--set', word] : []))
    expect(images.filter(word => word !== '--set')).toEqual([
      `image.registry=${REGISTRY}/ml`,
      expect.stringMatching(/^image\.operator\.digest=sha256:[0-9a-f]{64}$/),
      expect.stringMatching(/^image\.worker\.digest=sha256:[0-9a-f]{64}$/),
    ])
  })

  it('are refused with a remedy where the registry has no TLS, or where there is none', async () => {
    await expect(imagesCommand('operator', '--push', `${REGISTRY}/ml`)).rejects.toThrow('add --plain-http')
    await expect(imagesCommand('operator', '--push', '127.0.0.1:5001/ml')).rejects.toThrow('does not take the image')
  })
})

describe('the chart, under a job that trains', () => {
  let before = ''

  it('is installed under an earlier version, and runs a job', async () => {
    await run(programs['3'], ['package', CHART, '--version', '0.0.1', '--destination', folder], process.env)
    await helmDoes('3', 'install', 'scmoe', join(folder, 'scmoe-0.0.1.tgz'), '--wait', ...images)
    const container = { name: 'worker', resources: { limits: { cpu: '300m' } } }
    const spec = {
      training: { steps: 100_000, globalBatchSequences: 4, sequenceLength: 64, evaluation: { everySteps: 50_000 } },
      workers: { replicas: 2, template: { spec: { containers: [container] } } },
      failurePolicy: { maxRestarts: 0 },
      // Keeps the pods, because a test reads the log of the worker that did not fail as well.
      cleanPodPolicy: 'None',
    }
    const file = join(folder, 'long.yaml')
    writeFileSync(file, manifest({ name: 'long', spec }))
    await world.kubectl('apply', '-n', NAMESPACE, '-f', file)
    await until(world.kubectl, 'long', s => (s.progress?.step ?? 0) > 0)
    before = await pods()
    expect(before).toMatch(/^long-worker-0 \S+ 0\nlong-worker-1 \S+ 0\n$/)
  })

  it.each(['3', '4'] as const)(
    'is upgraded with Helm %s and tests itself, and the job does not notice',
    async major => {
      await helmDoes(major, 'upgrade', 'scmoe', CHART, '--wait', ...images, '--set', 'podAnnotations.helm=v' + major)
      const tested = await helmDoes(major, 'test', 'scmoe', '--logs')
      expect(tested).toContain('Succeeded')
      expect(tested).toContain('Complete: AllWorkersSucceeded: the worker reached step 1')
      await advances()
      expect(await pods()).toBe(before)
    },
  )

  it('fails its test, with the reason, where no job can run', async () => {
    // The job of `helm test` goes to a namespace that the operator does not watch.
    await helmDoes(
      '4',
      'upgrade',
      'scmoe',
      CHART,
      '--wait',
      ...images,
      '--set',
      `watchNamespaces={${NAMESPACE}},test.namespace=default,test.timeoutSeconds=10`,
    )
    await expect(helmDoes('4', 'test', 'scmoe', '--logs')).rejects.toThrow('failed')
    const pod = await world.kubectl('logs', 'scmoe-test', '-n', SYSTEM_NAMESPACE)
    expect(pod).toContain('no operator has looked at the job yet')
    expect(pod).toContain('the job has not ended after 10 s')
    const jobs = await world.kubectl('get', 'scmoejobs', '-n', 'default', '-o', 'name')
    expect(jobs, 'the job of the test goes in any case').toBe('')
  })

  it('leaves jobs, pods and CRD when removed, and takes them over when it returns', async () => {
    await helmDoes('4', 'uninstall', 'scmoe', '--wait')
    const left = await world.kubectl(
      'get',
      'deployments,services,serviceaccounts',
      '-n',
      SYSTEM_NAMESPACE,
      '-o',
      'name',
    )
    expect(left.trim()).toBe('serviceaccount/default')
    expect(await pods()).toBe(before)
    await helmDoes('4', 'install', 'scmoe', CHART, '--wait', ...images)
    await advances()
    expect(await pods()).toBe(before)
    expect((await status(world.kubectl, 'long')).restarts).toBe(0)
  })

  it('lets the built-in roles see and change jobs', async () => {
    for (const role of ['view', 'edit'])
      await world.kubectl('create', 'rolebinding', role, `--clusterrole=${role}`, `--user=${role}er`, '-n', NAMESPACE)
    const may = async (user: string, verb: string, ...what: string[]) =>
      (await world.kubectl('auth', 'can-i', verb, ...what, '-n', NAMESPACE, '--as', user).catch(() => 'no')).trim()
    // The controller that aggregates roles takes a moment.
    await expect.poll(async () => may('viewer', 'list', 'scmoejobs.scmoe.dev'), { timeout: 20_000 }).toBe('yes')
    expect(await may('viewer', 'patch', 'scmoejobs.scmoe.dev')).toBe('no')
    expect(await may('viewer', 'get', 'pods', '--subresource=log')).toBe('yes')
    expect(await may('editer', 'patch', 'scmoejobs.scmoe.dev')).toBe('yes')
    expect(await may('editer', 'get', 'pods', '--subresource=proxy')).toBe('yes')
  })
})

describe('scmoe trace and logs', () => {
  it('fetch the last profiled step of one rank, or of all', async () => {
    await until(world.kubectl, 'long', s => (s.progress?.step ?? 0) > 20)
    const file = join(folder, 'trace.json')
    const pids = () => {
      const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: { pid: number; ph: string }[] }
      return [...new Set(traceEvents.filter(({ ph }) => ph === 'X').map(({ pid }) => pid))]
    }
    expect(await scmoe('trace', 'long', '--output', file)).toContain(`${file}: one step of rank 0`)
    expect(pids()).toEqual([0])
    expect(await scmoe('trace', 'long', '--output', file, '--all-ranks')).toContain('one step of 2 ranks')
    expect(pids()).toEqual([0, 1])
  })

  it('show workers by rank, and the one that failed before the others', async () => {
    const running = await scmoe('logs', 'long', '--tail', '3')
    expect(running).toMatch(/^==> long-worker-0 on \S+, attempt 1: Running\n[\d:.]+ INFO [^]*\n==> long-worker-1 /)
    process.kill(workerPid('long', 1), 'SIGKILL')
    await expect(until(world.kubectl, 'long', () => false)).rejects.toThrow('SIGKILL')
    expect(await scmoe('logs', 'long', '--tail', '3')).toMatch(
      /^==> long-worker-1 on \S+, attempt 1: ended with code 137\n[^]*\n==> long-worker-0 /,
    )
    expect((await scmoe('why', 'long')).replaceAll('\n', ' ')).toMatch(
      /^long has failed: long-worker-1 failed .*SIGKILL/,
    )
  })
})

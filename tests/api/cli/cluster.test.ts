// Tests of the commands for jobs in a cluster. The commands run as processes against a real API
// server, on jobs that the operator has brought into their states. Logs and traces need a kubelet
// and are tested in tests/cluster.

import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve as resolvePath } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { API_VERSION, PLURAL } from '../../../crds/contract.ts'
import type { Pod } from '../../../operator/objects/wire.ts'
import { freePort } from '../../../tools/free-port.ts'
import { Kubelet, progressOf } from '../../support/api/kubelet.ts'
import { Api, type Namespace, Operator, waitFor } from '../../support/api/operator.ts'
import { COMPILED } from '../../support/compiled.ts'

let api: Api
let operator: Operator
let kubelet: Kubelet
let ns: Namespace
const PROGRAM = resolvePath('cli/scmoe.sh')
const folder = mkdtempSync(join(tmpdir(), 'scmoe-cli-'))

beforeAll(async () => {
  api = await Api.start()
  operator = await Operator.start(api.kubeconfig)
  kubelet = new Kubelet(api.kube)
})
afterAll(async () => {
  await kubelet?.stop()
  await operator?.stop()
  await api?.stop()
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(async () => {
  ns = await api.namespace()
})

interface Answer {
  code: number
  out: string
  error: string
}

const CI = { CI: 'true', FORCE_COLOR: undefined }

/** Runs `kubectl scmoe …` as users start it, with the environment of a CI. */
function scmoe(args: readonly string[], kubeconfig = api.kubeconfig, own = {}): Promise<Answer> {
  return new Promise(resolve => {
    execFile(PROGRAM, args, { env: { ...environment(kubeconfig), ...own } }, (failure, out, error) =>
      resolve({ code: typeof failure?.code === 'number' ? failure.code : failure ? -1 : 0, out, error }),
    )
  })
}
const environment = (kubeconfig: string) => ({ ...process.env, ...COMPILED, ...CI, KUBECONFIG: kubeconfig })
const here = async (...args: string[]) => scmoe([...args, '--namespace', ns.name])

async function running(name: string): Promise<void> {
  // A long back-off, so that a failed job stays as it is while a test looks at it.
  const backoff = { initialSeconds: 300, maxSeconds: 300 }
  const job = await ns.createJob(name, { workers: { replicas: 2 }, failurePolicy: { maxRestarts: 1, backoff } })
  for (const rank of [0, 1]) {
    const pod = await waitFor(`pod ${rank} of ${name}`, async () =>
      (await ns.list<Pod>('Pod')).find(({ metadata }) => metadata.name === `${name}-worker-${rank}`),
    )
    await kubelet.ready(pod)
  }
  await ns.state(name, 'Running')
  const { step, totalSteps, observedTime } = progressOf(job.metadata.uid ?? '')
  const status = {
    progress: { step, totalSteps, percent: 10, lossMilli: 2500, estimatedRemainingSeconds: 90 },
    throughput: { tokensPerSecond: 4000, tokensPerSecondPerRank: 2000, overlapPercent: 93, observedTime },
  }
  await api.kube.call({
    method: 'PATCH',
    path: `/apis/${API_VERSION}/namespaces/${ns.name}/${PLURAL}/${name}/status`,
    contentType: 'application/merge-patch+json',
    body: { status },
  })
}

describe('scmoe why', () => {
  it('follows a job through its life', async () => {
    await ns.createJob('gpt', { workers: { replicas: 2 }, failurePolicy: { maxRestarts: 0 } })
    await ns.state('gpt', 'Starting', 'WorkersStarting')
    expect((await here('why', 'gpt')).out.replaceAll('\n', ' ')).toContain('2 of 2 workers are not ready: gpt-worker-0')
    const [first] = await ns.gang(2)
    if (first === undefined) throw new Error('no gang')
    await kubelet.end(first, { exitCode: 137, reason: 'OOMKilled' })
    await ns.state('gpt', 'Failed')
    const { code, out, error } = await here('why', 'gpt')
    expect({ code, error }).toEqual({ code: 0, error: '' })
    expect(out.replaceAll('\n', ' ')).toMatch(
      /^gpt has failed: gpt-worker-0 failed .*OOMKilled.*Raise the memory limit/,
    )
    expect(Math.max(...out.split('\n').map(line => line.length))).toBeLessThanOrEqual(100)
  })
})

describe('scmoe top', () => {
  it('shows jobs once where there is no terminal, the fastest first, without colours unless they are asked for', async () => {
    await running('gpt')
    await ns.createJob('aside', { suspend: true })
    await ns.state('aside', 'Suspended')
    const { code, out } = await here('top')
    expect(code).toBe(0)
    expect(out).toBe(`NAME   STATE      READY  STEP    TOK/S  PER RANK  OVERLAP  LOSS   LEFT
gpt    Running    2/2    10/100  4000   2000      93 %     2.500  90 s
aside  Suspended  0/0    -       -      -         -        -      -

1 Running, 1 Suspended; 4000 tokens/s
`)
    // Some libraries use colours if CI is set; the text above would then begin with an escape.
    const forced = await scmoe(['top', '-n', ns.name], api.kubeconfig, { FORCE_COLOR: '1' })
    expect(forced.out.replaceAll('\u001B', 'ESC')).toMatch(/^ESC\[1mNAME .*\ngpt +ESC\[32mRunning/)
    const everywhere = await scmoe(['top', '--all-namespaces'])
    expect(everywhere.out).toMatch(new RegExp(`^NAMESPACE +NAME[^]*\\n${ns.name} +gpt +Running`))
  })

  it('shows them again and again where told so, with their trend', async () => {
    await running('gpt')
    const args = ['top', '--watch', '--interval', '0.2', '-n', ns.name]
    const watching = spawn(PROGRAM, args, { env: environment(api.kubeconfig), stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      let shown = ''
      watching.stdout.on('data', chunk => (shown += String(chunk)))
      const tables = () => shown.match(/^NAME .*TREND\ngpt .* 90 s +█$/gm)?.length ?? 0
      await waitFor('three tables', async () => tables() > 2)
    } finally {
      watching.kill('SIGKILL')
    }
  })

  it('says so where there are none', async () => {
    expect((await here('top')).out).toBe(`there are no ScMoEJobs in namespace ${ns.name}; -A shows all\n`)
  })
})

describe('scmoe suspend and resume', () => {
  it('give the pods back and let the job go on, and say when there is nothing to do', async () => {
    await running('gpt')
    expect((await here('suspend', 'gpt')).out).toBe(
      'gpt is suspended; it has no volume for checkpoints, so it will start again at the first step\n',
    )
    await ns.status('gpt', ({ state, workers }) => state === 'Suspended' && workers?.active === 0)
    expect((await here('suspend', 'gpt')).out).toBe('gpt is already suspended\n')
    expect((await here('resume', 'gpt')).out).toBe('gpt is resumed; it starts at the first step\n')
    await ns.gang(2, 2)
    expect((await here('resume', 'gpt')).out).toBe('gpt is not suspended\n')
  })

  it('refuse a job that has ended', async () => {
    await ns.createJob('gpt', { failurePolicy: { maxRestarts: 0 } })
    const [pod] = await ns.gang(1)
    if (pod === undefined) throw new Error('no gang')
    await kubelet.end(pod, { exitCode: 64 })
    await ns.state('gpt', 'Failed')
    const { code, error } = await here('suspend', 'gpt')
    expect({ code, error }).toEqual({ code: 1, error: 'gpt is Failed, which is final: there is nothing to suspend\n' })
  })
})

describe('scmoe logs and trace', () => {
  it('say why there is nothing to show', async () => {
    await ns.createJob('gpt', { suspend: true })
    await ns.state('gpt', 'Suspended')
    const logs = await here('logs', 'gpt')
    expect(logs).toEqual({ code: 1, out: 'gpt is Suspended and has no pods now, so there are no logs.\n', error: '' })
    const trace = await here('trace', 'gpt')
    expect(trace.code).toBe(1)
    expect(trace.error).toContain('gpt is Suspended: only a running job has a trace to fetch')
  })

  it('show the last words of a pod that is gone', async () => {
    await running('gpt')
    const [, second] = await ns.gang(2)
    if (second === undefined) throw new Error('no gang')
    const message = JSON.stringify({ failure: { rank: 1, reason: 'internal', message: 'it broke' } })
    await kubelet.end(second, { exitCode: 70, message })
    await ns.status('gpt', ({ restarts }) => restarts === 1)
    await waitFor('the pods to go', async () => (await ns.podNames()).length === 0)
    const { code, out } = await here('logs', 'gpt')
    expect({ code, out }).toEqual({
      code: 1,
      out: `gpt is Restarting and has no pods now, so there are no logs.
Attempt 1 ended with gpt-worker-1, whose pod is gone: exit code 70, internal: it broke

`,
    })
  })
})

describe('what a user gets wrong', () => {
  it('a name: those that come near, or where it is', async () => {
    await ns.createJob('gpt-small', { suspend: true })
    const name = { code: 1, out: '' }
    expect(await here('why', 'gtp-small')).toEqual({
      ...name,
      error: `there is no ScMoEJob "gtp-small" in namespace ${ns.name}; did you mean gpt-small?\n`,
    })
    expect((await here('resume', 'llama')).error).toBe(
      `there is no ScMoEJob "llama" in namespace ${ns.name}; there is: gpt-small\n`,
    )
    expect((await scmoe(['logs', 'gpt-small', '-n', 'default'])).error).toBe(
      `there is no ScMoEJob "gpt-small" in namespace default, but in ${ns.name}: give --namespace\n`,
    )
  })

  it('a cluster that is not there', async () => {
    const dead: { clusters: { cluster: { server: string } }[] } = parse(readFileSync(api.kubeconfig, 'utf8'))
    for (const { cluster } of dead.clusters) cluster.server = `https://127.0.0.1:${await freePort()}`
    const file = join(folder, 'dead')
    writeFileSync(file, JSON.stringify(dead))
    const { code, error } = await scmoe(['top'], file)
    expect(code).toBe(1)
    expect(error).toMatch(
      /^the API server https:\/\/127\.0\.0\.1:\d+ of context "[^"]+" does not answer \(connect ECONNREFUSED.*\)\. Check that the cluster is up/,
    )
  })

  it('a kubeconfig or a context', async () => {
    expect((await scmoe(['top', '--kubeconfig', '/nowhere'])).error).toMatch(
      /^the kubeconfig \/nowhere cannot be read \(ENOENT/,
    )
    expect((await scmoe(['top', '--context', 'other'])).error).toMatch(
      /^the kubeconfig has no context "other"; there are: /,
    )
  })

  it('rights: what is missing, and which role has it', async () => {
    const config: { users: { user: object }[] } = parse(readFileSync(api.kubeconfig, 'utf8'))
    for (const each of config.users) each.user = { ...each.user, as: 'nobody' }
    const file = join(folder, 'nobody')
    writeFileSync(file, JSON.stringify(config))
    const { code, error } = await scmoe(['top', '--namespace', ns.name], file)
    expect(code).toBe(1)
    expect(error).toMatch(
      /^not allowed: .*User "nobody" cannot list resource "scmoejobs".*Role `view` of the namespace/,
    )
  })

  it('a cluster without the chart', async () => {
    await operator.stop()
    await api.kube.call({
      method: 'DELETE',
      path: `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${PLURAL}.scmoe.dev`,
    })
    const answer = await waitFor('the CRD to go', async () => {
      const { error } = await scmoe(['why', 'gpt'])
      return error.includes('does not know') ? error : undefined
    })
    expect(answer).toContain('this cluster does not know ScMoEJobs: install the chart with `helm install')
  })
})

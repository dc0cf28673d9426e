// Tests of the life of jobs on a real node: training to the end, a worker that is killed, a wrong
// image, a job that is suspended, an operator that dies, and more.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ScMoEJobStatus } from '../../crds/status.ts'
import { builtImage } from '../../tools/images/images.ts'
import { installChart, ROOT } from '../../tools/install.ts'
import { run } from '../../tools/process.ts'
import { ENDINGS, specOf } from '../support/ends.ts'
import {
  type JobOptions,
  manifest,
  NAMESPACE,
  processInside,
  startWorld,
  status,
  until,
  type World,
  workerPid,
} from '../support/node.ts'

let world: World
const folder = mkdtempSync(join(tmpdir(), 'scmoe-jobs-'))

beforeAll(async () => {
  world = await startWorld()
})

afterAll(async () => {
  await world?.down()
  rmSync(folder, { recursive: true })
})

async function apply(options: JobOptions): Promise<string> {
  const file = join(folder, `${options.name}.yaml`)
  writeFileSync(file, manifest(options))
  await world.kubectl('apply', '-n', NAMESPACE, '-f', file)
  return file
}

/** Long enough to interrupt, short enough to finish. */
const LONG = {
  training: { steps: 1200, globalBatchSequences: 4, sequenceLength: 64, evaluation: { everySteps: 1000 } },
}

describe('a job on a real node', () => {
  it('trains to Complete and shows step, tokens per second and overlap in its columns', async () => {
    const file = await apply({
      name: 'complete',
      spec: {
        training: { steps: 60, globalBatchSequences: 8, sequenceLength: 64, optimizer: { learningRate: '3e-3' } },
      },
      checkpointEverySteps: 30,
    })
    const done = await until(world.kubectl, 'complete', s => s.state === 'Complete')
    expect(done.progress?.step).toBe(60)
    expect(done.restarts).toBe(0)
    expect(done.progress?.initialEvaluationLossMilli).toBeGreaterThan(5000)
    expect(done.progress?.evaluationLossMilli).toBeLessThan(4000)
    expect(done.throughput?.tokensPerSecond).toBeGreaterThan(0)
    expect(done.lastCheckpoint?.step).toBe(60)
    const table = await world.kubectl('get', 'scmoejobs', 'complete', '-n', NAMESPACE)
    expect(table).toMatch(/^NAME +STATE +READY +WORKERS +STEP +TOK\/S +OVERLAP +ETA +RESTARTS +AGE\n/)
    expect(table).toMatch(/complete +Complete +\d+ +2 +60 +\d+ +\d+ /)
    await world.kubectl('wait', '-n', NAMESPACE, '--for=condition=Complete', 'scmoejob/complete', '--timeout=5s')

    const output = join(folder, 'run')
    await run('node', [join(ROOT, 'cli/scmoe.ts'), 'run', file, '--output', output])
    const local = JSON.parse(readFileSync(join(output, 'summary.json'), 'utf8')) as {
      evaluationLoss: { last: number }
    }
    const inCluster = (done.progress?.evaluationLossMilli ?? 0) / 1000
    expect(Math.abs(local.evaluationLoss.last - inCluster), '`scmoe run` of the same file').toBeLessThan(0.01)
  })

  it('restarts once from its checkpoint when a worker is killed, and completes', async () => {
    await apply({ name: 'killed', spec: LONG, checkpointEverySteps: 50 })
    await until(world.kubectl, 'killed', s => (s.lastCheckpoint?.step ?? 0) >= 50)
    process.kill(workerPid('killed', 1), 'SIGKILL')
    const restarting = await until(world.kubectl, 'killed', s => s.restarts === 1)
    expect(restarting.lastFailure?.podName).toBe('killed-worker-1')
    expect(restarting.lastFailure?.exitCode).toBe(137)
    const done = await until(world.kubectl, 'killed', s => s.state === 'Complete')
    expect(done.restarts).toBe(1)
    expect(done.progress?.step).toBe(1200)
    const logs = await world.kubectl('logs', 'killed-worker-0', '-n', NAMESPACE)
    expect(logs).toMatch(/continuing after step \d+/)
  })

  it('says which image cannot be pulled', async () => {
    const template = { spec: { containers: [{ name: 'worker', image: 'localhost:1/absent:1' }] } }
    await apply({ name: 'no-image', spec: { ...LONG, workers: { replicas: 2, template } } })
    const seen = await until(world.kubectl, 'no-image', s => s.reason === 'ImagePull')
    expect(seen.state).toBe('Starting')
    expect(seen.message).toContain('localhost:1/absent:1')
    await world.kubectl('delete', 'scmoejob', 'no-image', '-n', NAMESPACE)
  })

  it('gives its pods back when suspended and continues when resumed', async () => {
    await apply({ name: 'pause', spec: LONG, checkpointEverySteps: 50 })
    const patch = (suspend: boolean): Promise<string> =>
      world.kubectl(
        'patch',
        'scmoejob',
        'pause',
        '-n',
        NAMESPACE,
        '--type=merge',
        '-p',
        JSON.stringify({ spec: { suspend } }),
      )
    await until(world.kubectl, 'pause', s => (s.progress?.step ?? 0) > 20)
    await patch(true)
    const suspended = await until(world.kubectl, 'pause', s => s.state === 'Suspended' && s.workers?.active === 0)
    expect(suspended.restarts).toBe(0)
    const selector = 'scmoe.dev/job-name=pause'
    await world.kubectl('wait', '-n', NAMESPACE, '--for=delete', 'pod', '-l', selector, '--timeout=60s')
    await patch(false)
    const done = await until(world.kubectl, 'pause', s => s.state === 'Complete')
    expect(done.restarts).toBe(0)
    expect(await world.kubectl('logs', 'pause-worker-0', '-n', NAMESPACE)).toMatch(/continuing after step \d+/)
  })

  it('restarts when a worker is stopped but not dead: its peer names it', async () => {
    const env = [{ name: 'SCMOE_PEER_TIMEOUT_SECONDS', value: '5' }]
    const template = { spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'worker', env }] } }
    await apply({ name: 'frozen', spec: { ...LONG, workers: { replicas: 2, template } } })
    await until(world.kubectl, 'frozen', s => (s.progress?.step ?? 0) > 5)
    process.kill(workerPid('frozen', 1), 'SIGSTOP')
    const restarting = await until(world.kubectl, 'frozen', s => s.restarts === 1)
    expect(restarting.lastFailure?.reason).toBe('peerLost')
    expect(restarting.lastFailure?.message).toMatch(/rank 1\b/)
    const done = await until(world.kubectl, 'frozen', s => s.state === 'Complete')
    expect(done.restarts).toBe(1)
  })

  it.each([
    ['worker is stopped', 'hung', async (pid: number) => process.kill(pid, 'SIGSTOP')],
    ['worker has lost its network link', 'cut', cutOff],
  ])('restarts a gang that hangs, found by its step: one %s', async (_, name, harm) => {
    const template = { spec: { terminationGracePeriodSeconds: 1 } }
    // A stopped worker is recognised because it is not ready. The kubelet takes up to 8 s to
    // report that.
    await apply({ name, spec: { ...LONG, progressDeadlineSeconds: 15, workers: { replicas: 2, template } } })
    await until(world.kubectl, name, s => (s.progress?.step ?? 0) > 5)
    await harm(workerPid(name, 1))
    const restarting = await until(world.kubectl, name, s => s.restarts === 1)
    expect(restarting.lastFailure).toMatchObject({ reason: 'ProgressDeadlineExceeded', podName: `${name}-worker-1` })
    const again = await until(world.kubectl, name, s => s.state === 'Running' && s.attempt === 2)
    expect(again).toMatchObject({ restarts: 1, restartsCountTowardsMax: 1 })
    await remove(name)
  })

  it('does not count the eviction of a worker, and says that it was one', async () => {
    await apply({
      name: 'evicted',
      spec: { ...LONG, failurePolicy: { maxRestarts: 0, backoff: { initialSeconds: 1 } } },
    })
    await until(world.kubectl, 'evicted', s => (s.progress?.step ?? 0) > 5)
    const eviction = {
      apiVersion: 'policy/v1',
      kind: 'Eviction',
      metadata: { name: 'evicted-worker-1', namespace: NAMESPACE },
    }
    const file = join(folder, 'eviction.json')
    writeFileSync(file, JSON.stringify(eviction))
    await world.kubectl('create', '--raw', `/api/v1/namespaces/${NAMESPACE}/pods/evicted-worker-1/eviction`, '-f', file)
    const running = await until(world.kubectl, 'evicted', s => s.state === 'Running' && s.attempt === 2)
    expect(running).toMatchObject({ restarts: 1, restartsCountTowardsMax: 0 })
    expect(running.lastFailure).toMatchObject({ podName: 'evicted-worker-1', reason: 'EvictionByEvictionAPI' })
    await remove('evicted')
  })

  it('restarts a worker that used more memory than it may, and says so', async () => {
    const container = { name: 'worker', resources: { limits: { memory: '32Mi' } } }
    const workers = { replicas: 1, template: { spec: { containers: [container] } } }
    const failurePolicy = { maxRestarts: 1, backoff: { initialSeconds: 1 } }
    await apply({ name: 'hungry', spec: { ...LONG, workers, failurePolicy } })
    const killed = { podName: 'hungry-worker-0', exitCode: 137, reason: 'OOMKilled' }
    const restarting = await until(world.kubectl, 'hungry', s => s.lastFailure !== undefined)
    expect(restarting).toMatchObject({ restarts: 1, restartsCountTowardsMax: 1, lastFailure: killed })
    await expect(until(world.kubectl, 'hungry', () => false)).rejects.toThrow('MaxRestartsExceeded')
    expect(await status(world.kubectl, 'hungry')).toMatchObject({ restarts: 1, lastFailure: { ...killed, attempt: 2 } })
    await remove('hungry')
  })

  it('starts with one worker where there is room for one, and goes on with two when there is for two', async () => {
    await chips(1)
    const container = { name: 'worker', resources: { limits: { [CHIP]: 1 } } }
    const workers = { replicas: 2, minReplicas: 1, template: { spec: { containers: [container] } } }
    // Also the time in which a pod that asks for room has to start.
    const scheduling = { timeoutSeconds: 6 }
    const spec = { ...LONG, training: { ...LONG.training, steps: 100_000 }, workers, scheduling }
    await apply({ name: 'elastic', spec, checkpointEverySteps: 50 })
    const alone = await until(world.kubectl, 'elastic', s => (s.lastCheckpoint?.step ?? 0) >= 50)
    expect(alone).toMatchObject({ restarts: 0, workers: { desired: 1, ready: 1 } })
    await chips(2)
    const both = await until(world.kubectl, 'elastic', s => s.state === 'Running' && s.workers?.desired === 2)
    expect(both).toMatchObject({ restarts: 0, workers: { ready: 2 } })
    await until(world.kubectl, 'elastic', s => (s.progress?.step ?? 0) > (alone.lastCheckpoint?.step ?? 0))
    expect(await world.kubectl('logs', 'elastic-worker-0', '-n', NAMESPACE)).toMatch(/continuing after step \d+/)
    const events = await world.kubectl('events', '--for', 'scmoejob/elastic', '-n', NAMESPACE)
    expect(events).toMatch(/ScaledDown[\s\S]*Insufficient example.com\/chip/)
    expect(events).toContain('ScaledUp')
    await remove('elastic')
  })

  it('goes on when operator and API server are killed in between', async () => {
    await apply({ name: 'orphan', spec: LONG })
    await until(world.kubectl, 'orphan', s => s.state === 'Running')
    const uids = await podUids('orphan')
    process.kill(processInside(world.cluster, '/app/operator.mjs'), 'SIGKILL')
    process.kill(processInside(world.cluster, '/kube-apiserver'), 'SIGKILL')
    await answering()
    const done = await until(world.kubectl, 'orphan', s => s.state === 'Complete')
    expect(done.restarts).toBe(0)
    expect(await podUids('orphan')).toEqual(uids)
  })

  it('leaves nothing behind when deleted', async () => {
    await apply({ name: 'gone', spec: LONG })
    await until(world.kubectl, 'gone', s => s.state === 'Running')
    await world.kubectl('delete', 'scmoejob', 'gone', '-n', NAMESPACE, '--cascade=foreground', '--timeout=90s')
    const kinds = 'pods,services,poddisruptionbudgets'
    const left = await world.kubectl('get', kinds, '-n', NAMESPACE, '-l', 'scmoe.dev/job-name=gone', '-o', 'name')
    expect(left.trim()).toBe('')
  })

  it('fails at once, naming the file, when the data is not there', async () => {
    await apply({ name: 'no-data', spec: { ...LONG, data: { path: '/nowhere/text.txt' } } })
    await expect(until(world.kubectl, 'no-data', () => false)).rejects.toThrow('/nowhere/text.txt')
    const failed = await status(world.kubectl, 'no-data')
    expect(failed.state).toBe('Failed')
    expect(failed.restarts).toBe(0)
  })
})

// All of them run at once, because most of their time is waiting.
describe('a pod that ends or waits for another reason than its worker', () => {
  const nameOf = (title: string) => `end-${Object.keys(ENDINGS).indexOf(title)}`

  beforeAll(async () => {
    const node = (await world.kubectl('get', 'nodes', '-o', 'jsonpath={.items[0].metadata.name}')).trim()
    const { name: image } = await builtImage('worker')
    const manifests = Object.entries(ENDINGS).map(([title, ending]) =>
      manifest({ name: nameOf(title), spec: specOf(ending, image, node) }),
    )
    const file = join(folder, 'endings.yaml')
    writeFileSync(file, manifests.join('---\n'))
    await world.kubectl('apply', '-n', NAMESPACE, '-f', file)
  })

  it.concurrent.each(Object.entries(ENDINGS))('is told: %s', async (title, { until: done, is, says, prints }) => {
    const name = nameOf(title)
    const seen = await reaches(name, done)
    expect(seen).toMatchObject(is)
    if (says !== undefined) expect(seen.lastFailure?.message ?? seen.message).toMatch(says)
    for (const [command, text] of Object.entries(prints ?? {}))
      expect(await scmoe(command, name), `scmoe ${command}`).toContain(text)
    await remove(name)
  })
})

/** Polls the status, also of a job that has failed. */
async function reaches(name: string, done: (seen: ScMoEJobStatus) => boolean): Promise<ScMoEJobStatus> {
  const deadline = Date.now() + 180_000
  for (;;) {
    const seen = await status(world.kubectl, name)
    if (done(seen)) return seen
    if (Date.now() > deadline) throw new Error(`${name} did not get there: ${JSON.stringify(seen, null, 2)}`)
    await new Promise(resolve => setTimeout(resolve, 1000))
  }
}

async function scmoe(command: string, job: string): Promise<string> {
  const flags = ['--namespace', NAMESPACE, '--kubeconfig', world.cluster.kubeconfig]
  return run('node', [join(ROOT, 'cli/scmoe.ts'), command, job, ...flags])
}

/** Takes the pod's link to its node down: no packet leaves or arrives, and nothing is closed. */
async function cutOff(pid: number): Promise<void> {
  await run('nsenter', ['--target', String(pid), '--net', 'ip', 'link', 'set', 'eth0', 'down'])
}

async function remove(job: string): Promise<void> {
  await world.kubectl('delete', 'scmoejob', job, '-n', NAMESPACE)
}

const CHIP = 'example.com/chip'

/** Gives the node `n` of a device that no other pod asks for. */
async function chips(n: number): Promise<void> {
  const patch = JSON.stringify({ status: { capacity: { [CHIP]: String(n) } } })
  const node = (await world.kubectl('get', 'nodes', '-o', 'name')).trim()
  await world.kubectl('patch', node, '--subresource=status', '--type=merge', '-p', patch)
}

/** Advertises GPUs as a device plugin does; the kubelet then admits pods that ask for them. */
async function advertise(gpus: number): Promise<void> {
  const node = (await world.kubectl('get', 'nodes', '-o', 'name')).trim()
  const amounts = { 'nvidia.com/gpu': String(gpus) }
  const patch = JSON.stringify({ status: { capacity: amounts, allocatable: amounts } })
  await world.kubectl('patch', node, '--subresource=status', '--type=merge', '-p', patch)
}

describe('a job with GPUs, its gang placed by Kubernetes', () => {
  it('is Queued without a pod on a node while one of two GPUs is there, and placed with both', async () => {
    // There is no GPU here, so the CPU image stands for a GPU worker on a node without a driver.
    await installChart(world.cluster, [
      'scheduling.provider=kubernetes',
      'image.gpuWorker.repository=localhost/scmoe/worker',
    ])
    await advertise(1)
    await apply({ name: 'gpus', spec: { ...LONG, workers: { replicas: 2, gpusPerWorker: 1 } } })
    const queued = await until(world.kubectl, 'gpus', s => s.state === 'Queued')
    expect(queued.reason).toBe('Unschedulable')
    expect(queued.message).toContain('Insufficient nvidia.com/gpu')
    const selector = 'scmoe.dev/job-name=gpus'
    const nodes = ['get', 'pods', '-n', NAMESPACE, '-l', selector, '-o', 'jsonpath={.items[*].spec.nodeName}']
    expect(await world.kubectl(...nodes)).toBe('')
    await advertise(2)
    await expect(until(world.kubectl, 'gpus', () => false)).rejects.toThrow('libcuda.so.1')
    const failed = await status(world.kubectl, 'gpus')
    expect(failed).toMatchObject({ state: 'Failed', reason: 'PermanentFailure', restarts: 0 })
    expect(failed.lastFailure).toMatchObject({ exitCode: 69, reason: 'deviceMissing' })
  })
})

async function podUids(job: string): Promise<string> {
  const selector = `scmoe.dev/job-name=${job}`
  return world.kubectl('get', 'pods', '-n', NAMESPACE, '-l', selector, '-o', 'jsonpath={.items[*].metadata.uid}')
}

/** Waits until the API server answers again. */
async function answering(): Promise<void> {
  for (let tries = 0; tries < 60; tries++) {
    const ready = await world.kubectl('get', '--raw', '/readyz', '--request-timeout=2s').catch(() => '')
    if (ready.trim() === 'ok') return
    await new Promise(resolve => setTimeout(resolve, 500))
  }
  throw new Error('the API server did not come back')
}

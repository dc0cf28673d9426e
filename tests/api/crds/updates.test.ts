// Tests of the rules for updates on a real API server.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { TRANSITIONS } from '../../../crds/definition/transitions.ts'
import { fill } from '../../../crds/rule.ts'
import { refusalLines, Server } from '../../support/api/crd-server.ts'

const VOLUME = 'checkpoint: {volume: {hostPath: {path: /srv}}}'

let server: Server
let job = ''
let jobs = 0
beforeAll(async () => {
  server = await Server.start({ crd: true })
})
beforeEach(async () => {
  job = `job-${++jobs}`
  await server.create(job, `${VOLUME}\n  workers: {replicas: 2, gpusPerWorker: 1}`)
})
afterAll(() => server?.stop())

/** The lines with which a merge patch of the spec is refused; none if the patch is taken. */
async function update(spec: object, ...more: string[]): Promise<string[]> {
  const patch = JSON.stringify({ spec })
  const { ok, error } = await server.kubectl('patch', 'scmoejob', job, '--type=merge', '--patch', patch, ...more)
  return ok ? [] : refusalLines(error)
}

const scale = () => server.kubectl('scale', 'scmoejob', job, '--replicas=4')

describe('an update', () => {
  it.each([
    ['suspend', { suspend: true }],
    ['steps upward', { training: { steps: 11 } }],
    ['the checkpoint interval', { checkpoint: { everySteps: 7, keep: 1 } }],
    ['the reporting interval', { reporting: { intervalSeconds: 60 } }],
    ['deadlines', { startupDeadlineSeconds: 60, progressDeadlineSeconds: 60, scheduling: { timeoutSeconds: 60 } }],
  ])('may change %s', async (_, spec) => {
    expect(await update(spec)).toEqual([])
  })

  it.each([
    ['managedBy', { managedBy: 'example.com/other' }],
    ['model', { model: { experts: 16 } }],
    ['training.globalBatchSequences', { training: { globalBatchSequences: 16 } }],
    ['training.sequenceLength', { training: { sequenceLength: 128 } }],
    ['training.microBatches', { training: { microBatches: 2 } }],
    ['training.recompute', { training: { recompute: true } }],
    ['training.precision', { training: { precision: 'bfloat16' } }],
    ['training.seed', { training: { seed: 2 } }],
    ['training.optimizer', { training: { optimizer: { warmupSteps: 1 } } }],
    ['training.evaluation', { training: { evaluation: { batches: 1 } } }],
    ['data', { data: { builtin: 'sotu' } }],
    ['parallelism', { parallelism: { expertParallelSize: 1 } }],
    ['overlap', { overlap: { strategy: 'Sequential' } }],
    ['network', { network: { port: 30_000 } }],
    ['failurePolicy', { failurePolicy: { maxRestarts: 0 } }],
    ['checkpoint.volume', { checkpoint: { volume: { hostPath: { path: '/srv/other' } } } }],
    ['checkpoint.subPath', { checkpoint: { subPath: 'a' } }],
    ['checkpoint', { checkpoint: null }],
    ['training.steps', { training: { steps: 9 } }],
    ['workers.replicas', { workers: { replicas: 1 } }],
    ['workers.gpusPerWorker', { workers: { gpusPerWorker: 2 } }],
    ['workers.gpuResourceName', { workers: { gpuResourceName: 'amd.com/gpu' } }],
    ['scheduling.queueName', { scheduling: { queueName: 'b' } }],
    ['scheduling.constraints', { scheduling: { constraints: { topology: [{ key: 'rack' }] } } }],
    ['workers.minReplicas', { workers: { minReplicas: 1 } }],
    ['workers.template', { workers: { template: { spec: { nodeSelector: { a: 'b' } } } } }],
  ])('may not change %s', async (field, spec) => {
    const rule = TRANSITIONS.find(transition => transition.field === `spec.${field}`)
    const message = fill(rule?.message ?? 'no such rule', name => ({ old: '10', new: '9' })[name] ?? '')
    // For a scalar the API server adds the value.
    const said = await update(spec)
    expect(said.map(line => line.replace(/Invalid value: ("[^"]*"|\d+|true): /, 'Invalid value: '))).toEqual([
      `spec.${field}: Invalid value: ${message}`,
    ])
  })

  // Seen failing without the rule: the steps of a finished job were raised, and nothing happened.
  it.each(['Complete', 'Failed'])('may not raise steps of a job that is %s, and says what to do', async state => {
    const patch = JSON.stringify({ status: { state } })
    await server.must('patch', 'scmoejob', job, '--subresource=status', '--type=merge', '--patch', patch)
    expect(await update({ training: { steps: 20 } })).toEqual([
      `spec.training.steps: Invalid value: training.steps cannot be raised any more, because the job is ${state}: delete the job and apply it again with more steps; it goes on from the newest checkpoint in its volume`,
    ])
    expect(await update({ reporting: { intervalSeconds: 60 } })).toEqual([])
  })

  it.each([
    ['no checkpoint', ''],
    ['a checkpoint that goes with the pods', 'checkpoint: {volume: {emptyDir: {}}}'],
  ])('may raise steps of a job with %s only while it is suspended', async (_, checkpoint) => {
    job = `job-${++jobs}`
    await server.create(job, checkpoint)
    expect(await update({ training: { steps: 20 } })).toEqual([
      expect.stringContaining('training.steps can be raised only with a checkpoint in a volume that outlives the pods'),
    ])
    expect(await update({ suspend: true })).toEqual([])
    expect(await update({ training: { steps: 20 } })).toEqual([])
  })

  it('is tried for every rule', () => {
    expect(TRANSITIONS).toHaveLength(28)
  })

  it('may change workers of a suspended job, and resume it at once', async () => {
    expect(await update({ suspend: true })).toEqual([])
    expect(
      await update({ suspend: false, workers: { replicas: 4, template: { spec: { nodeSelector: { a: 'b' } } } } }),
    ).toEqual([])
    expect(await update({ workers: { template: null } })).toHaveLength(1)
  })

  it('may change the ports of a suspended job, which still have to differ', async () => {
    expect(await update({ suspend: true })).toEqual([])
    expect(await update({ network: { httpPort: 8090 } })).toEqual([])
    expect(await update({ network: { httpPort: 29_500 } })).toEqual([
      'spec.network.port: Invalid value: network.port is 29500, where the worker answers probes and progress requests (network.httpPort 29500): change one of them',
    ])
  })

  it('may change the precision of a suspended job, and take it back to CPUs in float32 alone', async () => {
    expect(await update({ suspend: true })).toEqual([])
    expect(await update({ training: { precision: 'bfloat16' } })).toEqual([])
    expect(await update({ workers: { gpusPerWorker: 0 } })).toEqual([
      expect.stringContaining('training.precision is bfloat16, but workers.gpusPerWorker is 0'),
    ])
    expect(await update({ training: { precision: 'float32' }, workers: { gpusPerWorker: 0 } })).toEqual([])
  })

  it('of a suspended job still has to fit together', async () => {
    expect(await update({ suspend: true })).toEqual([])
    expect(await update({ workers: { replicas: 3 } })).toEqual([
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 8, which is not a multiple of 3 ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches 1: every rank takes an equal share, so change one of them',
      'spec.parallelism.expertParallelSize: Invalid value: 3 ranks (parallelism.expertParallelSize, or by default all) cannot share model.experts 8 equally: use a size that divides model.experts',
    ])
  })

  it('by kubectl scale obeys the same rules', async () => {
    expect((await scale()).error).toContain('workers.replicas can change only while the job is suspended')
    await update({ suspend: true })
    expect((await scale()).ok).toBe(true)
  })

  it('by kubectl scale needs no suspension where the job is elastic', async () => {
    await update({ suspend: true })
    expect(await update({ suspend: false, workers: { minReplicas: 2 } })).toEqual([])
    expect((await scale()).ok).toBe(true)
    expect(await update({ workers: { replicas: 1 } })).toEqual([
      'spec.workers.minReplicas: Invalid value: workers.minReplicas is 2, more than workers.replicas 1: change one of them',
    ])
  })

  it('of the status alone is not judged by the rules for spec', async () => {
    const patch = '{"status":{"state":"Pending"}}'
    expect(
      (await server.kubectl('patch', 'scmoejob', job, '--subresource=status', '--type=merge', '--patch', patch)).ok,
    ).toBe(true)
  })
})

// Tests of the environment that a worker reads, and of the number of threads it takes from cgroups.

import { expect, test } from 'vitest'
import { ENV } from '../../../crds/contract.ts'
import { readConfig } from '../../../worker/config.ts'
import { WorkerFailure } from '../../../worker/failure.ts'
import { quotaThreads, type ReadText } from '../../../worker/threads.ts'

const SECRET = 'a-random-text-of-32-characters...'

const spec = (change: object = {}) => ({
  model: { experts: 4 },
  training: { steps: 10, globalBatchSequences: 8 },
  workers: { replicas: 2 },
  ...change,
})

const environment = (change: Record<string, string | undefined> = {}, jobSpec: object = spec()) => ({
  [ENV.jobName]: 'job',
  [ENV.jobUid]: 'uid',
  [ENV.attempt]: '3',
  [ENV.rank]: '1',
  [ENV.worldSize]: '2',
  [ENV.rendezvous]: 'job-worker-0.job:29500',
  [ENV.secret]: SECRET,
  [ENV.spec]: JSON.stringify(jobSpec),
  ...change,
})

test('a whole environment gives the configuration, with the defaults of the contract', () => {
  const config = readConfig(environment())
  expect(config).toMatchObject({
    jobName: 'job',
    attempt: 3,
    rank: 1,
    worldSize: 2,
    expertParallelSize: 2,
    rendezvous: { host: 'job-worker-0.job', port: 29_500 },
    outputDirectory: undefined,
    httpPort: 8080,
    terminationLog: '/dev/termination-log',
  })
  expect(config.computeThreads).toBeGreaterThanOrEqual(1)
  expect(config.spec.training.sequenceLength).toBe(256)
})

test('a worker with GPUs has one rank for each', () => {
  const gpus = spec({ workers: { replicas: 1, gpusPerWorker: 2 } })
  const config = readConfig(environment({ [ENV.backend]: 'cuda', [ENV.localRank]: '1' }, gpus))
  expect(config).toMatchObject({ worldSize: 2, expertParallelSize: 2, backend: 'cuda', localRank: 1 })
  expect(readConfig(environment())).toMatchObject({ backend: 'cpu', localRank: 0 })
})

test('a rank alone needs no secret', () => {
  const alone = spec({ workers: { replicas: 1 } })
  const change = { [ENV.secret]: undefined, [ENV.rank]: '0', [ENV.worldSize]: '1' }
  expect(readConfig(environment(change, alone)).secret).toBe('')
})

test('an IPv6 rendezvous is written in brackets', () => {
  const { rendezvous } = readConfig(environment({ [ENV.rendezvous]: '[fd00::1]:4000' }))
  expect(rendezvous).toEqual({ host: 'fd00::1', port: 4000 })
})

test.each<[string, Record<string, string | undefined>, object, RegExp]>([
  ['a missing variable', { [ENV.jobUid]: undefined }, spec(), /SCMOE_JOB_UID is not set/],
  ['no secret for ranks that have to meet', { [ENV.secret]: undefined }, spec(), /SCMOE_SECRET is not set/],
  ['a secret that can be guessed', { [ENV.secret]: 'x'.repeat(31) }, spec(), /SCMOE_SECRET has 31 characters/],
  ['a rank outside the world', { [ENV.rank]: '2' }, spec(), /SCMOE_RANK is "2".*from 0 to 1/],
  ['a rank that is no number', { [ENV.rank]: '1x' }, spec(), /SCMOE_RANK is "1x"/],
  ['a backend that there is not', { [ENV.backend]: 'rocm' }, spec(), /SCMOE_BACKEND is "rocm".*cpu or cuda/],
  ['graphs neither on nor off', { SCMOE_CUDA_GRAPHS: '2' }, spec(), /SCMOE_CUDA_GRAPHS is "2".*from 0 to 1/],
  ['no threads', { [ENV.computeThreads]: '0' }, spec(), /SCMOE_COMPUTE_THREADS is "0"/],
  ['a rendezvous without port', { [ENV.rendezvous]: 'host' }, spec(), /SCMOE_RENDEZVOUS is "host".*host:port/],
  ['a spec that is not JSON', { [ENV.spec]: '{' }, spec(), /SCMOE_SPEC is not JSON/],
  ['a wrong type', {}, spec({ training: { steps: 'ten' } }), /spec\.training\.steps is "ten"/],
  ['a missing field', {}, spec({ training: {} }), /spec\.training\.steps is missing/],
  ['an unknown field', {}, spec({ modell: {} }), /spec has unknown fields modell/],
  [
    'another world size',
    { [ENV.worldSize]: '4' },
    spec(),
    /SCMOE_WORLD_SIZE is 4, but workers\.replicas 2 and workers\.gpusPerWorker 0 make 2 ranks: start 2 ranks/,
  ],
  [
    'bfloat16 on the CPUs of a pod with GPUs',
    { [ENV.backend]: 'cpu' },
    spec({ training: { steps: 1, precision: 'bfloat16' }, workers: { replicas: 2, gpusPerWorker: 1 } }),
    /training\.precision is bfloat16, but the ranks here compute on CPUs.*SCMOE_BACKEND=cuda, or use precision float32/,
  ],
  // Each rule is broken in tests/unit/crds/agreement.test.ts.
  ['a job that breaks a rule', {}, spec({ model: { experts: 3 } }), /model\.experts 3/],
])('refused as bad configuration, naming what and why: %s', (_, change, jobSpec, message) => {
  let failure: unknown
  try {
    readConfig(environment(change, jobSpec))
  } catch (error) {
    failure = error
  }
  expect(failure).toBeInstanceOf(WorkerFailure)
  expect(failure).toMatchObject({ reason: 'badConfig', message: expect.stringMatching(message) })
})

const files =
  (content: Record<string, string>): ReadText =>
  path =>
    content[path]

test.each<[string, Record<string, string>, number | undefined]>([
  ['v2, own cgroup at the root', { '/proc/self/cgroup': '0::/', '/sys/fs/cgroup/cpu.max': '250000 100000' }, 2],
  ['v2, half a CPU is one thread', { '/proc/self/cgroup': '0::/', '/sys/fs/cgroup/cpu.max': '50000 100000' }, 1],
  ['v2, no limit', { '/proc/self/cgroup': '0::/', '/sys/fs/cgroup/cpu.max': 'max 100000' }, undefined],
  [
    'v2, the tightest of the parents counts',
    {
      '/proc/self/cgroup': '0::/pods/one',
      '/sys/fs/cgroup/pods/one/cpu.max': 'max 100000',
      '/sys/fs/cgroup/pods/cpu.max': '300000 100000',
      '/sys/fs/cgroup/cpu.max': '800000 100000',
    },
    3,
  ],
  [
    'v1',
    {
      '/proc/self/cgroup': '7:memory:/x\n4:cpu,cpuacct:/x\n',
      '/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us': '400000\n',
      '/sys/fs/cgroup/cpu/x/cpu.cfs_period_us': '100000\n',
    },
    4,
  ],
  [
    'v1, no limit',
    {
      '/proc/self/cgroup': '4:cpu,cpuacct:/\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    },
    undefined,
  ],
  ['no cgroups', {}, undefined],
])('threads from the CPU quota: %s', (_, content, expected) => {
  expect(quotaThreads(files(content))).toBe(expected)
})

// Runs the tests of a GPU (tests/gpu) on stand-ins, so that the tests themselves are tested where
// there is no GPU. The CUDA backend's kernels are compiled for the host, where each thread is a
// fiber (tests/native/cuda/emulator); its streams run everything at once, and NCCL is a stand-in
// over TCP. Ops and checkpoints use a device made of threads with the CPU's kernels, so their
// numbers are equal to the bit. A pass here says nothing about a real GPU.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { BUILD_DEADLINE } from '../../support/build.ts'
import {
  claimCheckpoints,
  claimOps,
  claimPrecision,
  claimRanks,
  claimTraining,
  type Machine,
} from '../../support/gpu/claims.ts'
import { buildStandIns, emulatedEnvironment, standInEnvironment } from '../../support/standin.ts'

const root = join(import.meta.dirname, '../../..')
let environment: Record<string, string> = {}
beforeAll(() => {
  buildStandIns('cuda_device_test')
  environment = emulatedEnvironment()
}, BUILD_DEADLINE)

const emulated = (): Machine => ({ environment, tolerance: 1e-5, opsWords: [], graphs: false })
const threads = (): Machine => {
  return { environment: standInEnvironment(), tolerance: 0, opsWords: ['--f32'], graphs: true }
}

describe('on the CUDA backend, emulated', () => {
  claimTraining(emulated)
  claimPrecision(emulated)
  claimCheckpoints(emulated, 1, 'bfloat16')
  claimRanks(emulated)
})

describe('on a device made of threads', () => {
  claimOps(threads)
  claimCheckpoints(threads, 2, 'float32')
})

describe('cuda_device_test', () => {
  const test = (settings: Record<string, string>) =>
    spawnSync(join(root, 'build/native/cuda_device_test'), ['--f32'], {
      env: { ...process.env, ...standInEnvironment(settings) },
      encoding: 'utf8',
    })

  it('names an op that writes behind its output, and the place', () => {
    const { status, stderr } = test({ STANDIN_STRAY: 'layernorm' })
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/layernorm wrote outside of its outputs: byte \d+ of a buffer of \d+/),
    })
  })

  it('ends with 69 and the reason where there is no GPU', () => {
    const { status, stderr } = test({ SCMOE_CUDA_DRIVER: '/nowhere' })
    expect({ status, stderr }).toMatchObject({
      status: 69,
      stderr: expect.stringContaining('install the NVIDIA driver'),
    })
  })
})

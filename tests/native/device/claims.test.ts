// The tests of a GPU (tests/gpu) with what stands in for one, so that they are known to work before they meet one. The CUDA backend's kernels are
// compiled for the host with every thread a fiber (tests/native/cuda/emulator), its streams do everything at once, NCCL is a stand-in over TCP. Ops and
// checkpoints have a device made of threads, whose kernels are the CPU's, to the bit. What passes here has not run on a GPU.

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
      stderr: expect.stringMatching(/layernorm wrote what is no output of it: byte \d+ of a buffer of \d+/),
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

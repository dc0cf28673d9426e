// Tests of the messages that a user sees when a driver, GPU or library is missing. The stand-ins of
// tests/native/standin play them.

import { beforeAll, describe, expect, it } from 'vitest'
import { BUILD_DEADLINE } from '../../support/build.ts'
import { makeProgram, shapeOf } from '../../support/engine/programs.ts'
import { failureOf, startWorld, World } from '../../support/engine/ranks.ts'
import { buildStandIns, standInEnvironment } from '../../support/standin.ts'

beforeAll(() => buildStandIns(), BUILD_DEADLINE)

/** How creating an engine for a GPU ends with this environment. */
async function refusal(environment: NodeJS.ProcessEnv, index = 0) {
  await using world = new World(1, environment)
  return await failureOf(world.create({ backend: 'cuda', device: { index } }))
}

const MISSING: [string, NodeJS.ProcessEnv, RegExp][] = [
  [
    'there is no driver',
    { SCMOE_CUDA_DRIVER: '/nowhere/libcuda.so.1' },
    /SCMOE_CUDA_DRIVER is \/nowhere\/libcuda\.so\.1, which cannot be opened: .*No such file.*install the NVIDIA driver/,
  ],
  [
    'the driver is too old',
    standInEnvironment({ STANDIN_DRIVER: '11080' }),
    /libcuda\.so\.1 runs CUDA 11\.8 at most, 12\.0 is needed: update it/,
  ],
  [
    'the driver does not start',
    standInEnvironment({ STANDIN_INIT: '100' }),
    /does not start: CUDA_ERROR_NO_DEVICE \(100\)\. See nvidia-smi/,
  ],
  ['the driver sees no GPU', standInEnvironment({ STANDIN_DEVICES: '0' }), /sees no GPU.*CUDA_VISIBLE_DEVICES/],
  [
    'cuBLASLt is missing',
    standInEnvironment({ SCMOE_CUBLASLT_LIBRARY: '' }),
    /cuBLASLt cannot be opened: libcublasLt\.so\.13: .*; install CUDA's libcublas/,
  ],
  [
    'the device library is missing',
    standInEnvironment({ SCMOE_CUDA_LIBRARY: '/nowhere/libscmoe_cuda.so' }),
    /SCMOE_CUDA_LIBRARY is \/nowhere.*cannot be opened.*; build it .* use the GPU image/,
  ],
  [
    'the device library is of another version',
    standInEnvironment({ STANDIN_ABI: '0' }),
    /libscmoe_cuda\.so was built for another version of the engine; build both from one tree/,
  ],
  [
    'the device library is no such library',
    standInEnvironment({ SCMOE_CUDA_LIBRARY: 'libnccl.so.2' }),
    /libnccl\.so\.2 has no function scmoe_device/,
  ],
  [
    'the device library was built with a newer CUDA than the driver runs',
    standInEnvironment({ STANDIN_RUNTIME: '13000', STANDIN_DRIVER: '12080' }),
    /was built with CUDA 13\.0, but the driver runs CUDA 12\.8 at most: update the driver, or build with an older toolkit/,
  ],
  [
    'the GPU does not answer',
    standInEnvironment({ STANDIN_MUTE: '1' }),
    /GPU 0 does not answer: cudaSetDevice: no words\. See nvidia-smi; the driver runs CUDA \d+\.\d, the backend was built with \d+\.\d/,
  ],
  [
    'the GPU is too old',
    standInEnvironment({ STANDIN_COMPUTE: '75' }),
    /GPU 0 is a .* of compute capability 7\.5, 8\.0 or newer is needed.*use an A100 or newer/,
  ],
]

describe('an engine for a GPU is refused with DEVICE_MISSING, saying what was found, what is needed and what to do, where', () => {
  it.each(MISSING)('%s', async (_, environment, message) => {
    const failure = await refusal(environment)
    expect(failure.code).toBe('DEVICE_MISSING')
    expect(failure.message).toMatch(message)
  })

  it('a GPU is wanted that this process does not see', async () => {
    const { code, message } = await refusal(standInEnvironment({ STANDIN_DEVICES: '2' }), 2)
    expect(code).toBe('DEVICE_MISSING')
    expect(message).toMatch(
      /GPU 2 is wanted, but this process sees 2, counted from 0: ask for as many as there are ranks/,
    )
  })

  it.each([
    [
      'NCCL is missing',
      { SCMOE_NCCL_LIBRARY: '/nowhere/libnccl.so.2' },
      /cannot be opened.*; install NCCL 2\.18 or newer/,
    ],
    [
      'NCCL is too old',
      { STANDIN_NCCL: '21705' },
      /is NCCL 2\.17\.5, 2\.18 or newer of major version 2 is needed; install/,
    ],
    [
      'NCCL is of another major version',
      { STANDIN_NCCL: '30100' },
      /is NCCL 3\.1\.0, 2\.18 or newer of major version 2/,
    ],
  ])('%s and there is more than one rank', async (_, settings, message) => {
    const environment = standInEnvironment(settings)
    await using alone = await startWorld(1, { backend: 'cuda' }, environment)
    expect(alone.size).toBe(1)
    await using world = new World(2, environment)
    await world.create({ backend: 'cuda' })
    const failures = await failureOf(world.connect())
    expect(failures).toMatchObject({ code: 'DEVICE_MISSING' })
    expect(failures.message).toMatch(message)
  })
})

describe('a program that does not fit', () => {
  const program = (elements: number) => makeProgram('large', shapeOf(0, 1), { a: elements }, [])

  it('is refused with OUT_OF_MEMORY: bytes needed, bytes free, what to change; a smaller one still loads', async () => {
    await using world = await startWorld(1, { backend: 'cuda' }, standInEnvironment({ STANDIN_MEMORY: '1000000' }))
    const failure = await failureOf(world.rank(0).call('load', program(1_000_000)))
    expect(failure.code).toBe('OUT_OF_MEMORY')
    expect(failure.message).toMatch(/4000000 bytes needed on standin:0 .*, 1000000 free; lower the batch/)
    await world.rank(0).call('load', program(100_000))
  })

  it('may take all that is free', async () => {
    await using world = await startWorld(1, { backend: 'cuda' }, standInEnvironment({ STANDIN_MEMORY: '1024' }))
    await world.rank(0).call('load', program(256))
  })
})

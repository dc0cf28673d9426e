// Workers whose GPU, a stand-in (tests/native/standin), is too small or not there. Workers that train on one: tests/gpu/claims.ts.

import { beforeAll, expect, test } from 'vitest'
import { ENV, EXIT } from '../../crds/contract.ts'
import { buildStandIns, standInEnvironment } from './standin/standin.ts'
import { TestGang, temporaryFolder, tinySpec } from './worker-gang.ts'

beforeAll(() => buildStandIns(), 900_000)

const leg = (steps: number, rest: object = {}) =>
  tinySpec({ steps, replicas: 2, everySteps: 1_000_000, warmupSteps: 60, rest })
const gpu = (settings: Record<string, string> = {}) => standInEnvironment({ [ENV.backend]: 'cuda', ...settings })

async function endOf(spec: Parameters<typeof TestGang.start>[0], settings: Record<string, string>) {
  const [end] = await (await TestGang.start(spec, temporaryFolder(), gpu(settings))).ends()
  return end
}

test('a model that does not fit on the GPU fails the job, with the bytes it needs and those there are', async () => {
  const end = await endOf(leg(1), { STANDIN_MEMORY: '100000' })
  expect(end?.code).toBe(EXIT.outOfMemory.code)
  expect(end?.record?.failure?.message).toMatch(/^\d+ bytes needed on standin:0 .*, 100000 free; lower the batch/)
})

test('a worker that is to use a GPU where there is no driver fails the job, saying what to do', async () => {
  const end = await endOf(leg(1), { SCMOE_CUDA_DRIVER: '/nowhere' })
  expect(end?.code).toBe(EXIT.deviceMissing.code)
  expect(end?.record?.failure?.message).toContain('install the NVIDIA driver')
})

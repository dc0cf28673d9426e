// Tests of workers whose GPU is a stand-in (tests/native/standin): how they exchange rows, and what
// they say if the GPU is too small or missing. tests/support/gpu/claims.ts has workers that train
// on a GPU.

import { beforeAll, expect, test } from 'vitest'
import { ENV, EXIT } from '../../../crds/contract.ts'
import { BUILD_DEADLINE } from '../../support/build.ts'
import { buildStandIns, standInEnvironment } from '../../support/standin.ts'
import { lossCurve, TestGang, temporaryFolder, tinySpec, trainToEnd } from '../../support/worker-gang.ts'

beforeAll(() => buildStandIns(), BUILD_DEADLINE)

const leg = (steps: number, rest: object = {}) =>
  tinySpec({ steps, replicas: 2, everySteps: 1_000_000, warmupSteps: 60, rest })
const gpu = (settings: Record<string, string> = {}) => standInEnvironment({ [ENV.backend]: 'cuda', ...settings })

async function endOf(spec: Parameters<typeof TestGang.start>[0], settings: Record<string, string>) {
  const [end] = await (await TestGang.start(spec, temporaryFolder(), gpu(settings))).ends()
  return end
}

test('workers whose exchanges are padded and whose NCCL may take little of the GPU train as others do', async () => {
  const [counted, padded] = [temporaryFolder(), temporaryFolder()]
  const workers = { replicas: 2, gpusPerWorker: 1 }
  await trainToEnd(leg(10, { workers }), counted, gpu())
  const overlap = { exchange: 'Padded', nccl: { maxCTAs: 4, ctaPolicy: 'Zero' } }
  const [first] = await trainToEnd(leg(10, { workers, overlap }), padded, gpu({ STANDIN_NCCL_SAYS: '1' }))
  expect(lossCurve(padded)).toEqual(lossCurve(counted))
  expect(first?.log).toContain('standin NCCL: at most 4 CTAs, policy 2')
})

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

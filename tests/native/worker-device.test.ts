// Workers on GPUs: each process has a stand-in for one (tests/native/standin) whose kernels are the CPU's, so that every loss has to be the CPU's,
// to the bit. There is no GPU here.

import { beforeAll, expect, test } from 'vitest'
import { ENV, EXIT } from '../../crds/contract.ts'
import { buildStandIns, standInEnvironment } from './standin/standin.ts'
import { lossCurve, TestGang, temporaryFolder, tinySpec, trainToEnd } from './worker-gang.ts'

beforeAll(buildStandIns, 900_000)

const leg = (steps: number, rest: object = {}) =>
  tinySpec({ steps, replicas: 2, everySteps: 1_000_000, warmupSteps: 60, rest })
const gpu = (settings: Record<string, string> = {}) => standInEnvironment({ [ENV.backend]: 'cuda', ...settings })

// Seen failing: first moments not uploaded after a restore; the last checkpoint not downloaded before it is written.
test('a run moves from CPU to GPU and back by its checkpoints, and its losses are those of a run that never moved', async () => {
  const [straight, moved] = [temporaryFolder(), temporaryFolder()]
  await trainToEnd(leg(30), straight)
  await trainToEnd(leg(10), moved)
  const [first] = await trainToEnd(leg(20), moved, gpu())
  await trainToEnd(leg(30), moved)
  expect(lossCurve(moved)).toEqual(lossCurve(straight))
  expect(first?.log).toContain('standin:0 (stand-in made of threads)')
  expect(first?.log).toMatch(/"persistentBytes":\d+,"transientBytes":\d+,"availableBytes":2147483648,"msg":"memory"/)
})

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

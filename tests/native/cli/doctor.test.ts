// Tests of `scmoe doctor` on this machine, and with stand-ins for the software of a GPU
// (tests/native/standin).

import { execFile, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { freePort } from '../../../tools/free-port.ts'
import { inspectHardware } from '../../../worker/engine.ts'
import { BUILD_DEADLINE } from '../../support/build.ts'
import { buildStandIns, standInEnvironment } from '../../support/standin.ts'

beforeAll(() => buildStandIns(), BUILD_DEADLINE)

const scmoe = join(import.meta.dirname, '../../../cli/scmoe.ts')
function doctor(words: string[], environment: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [scmoe, 'doctor', ...words], {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
  })
  return { status, stdout, stderr }
}

describe('scmoe doctor', () => {
  it('without a GPU says what is missing and what to do, and that a worker would run on the CPU: exit code 0', () => {
    const { status, stdout } = doctor([], { SCMOE_CUDA_DRIVER: '/nowhere' })
    expect(status).toBe(0)
    expect(stdout).toContain(`processor     ${inspectHardware().cpu}, `)
    expect(stdout).toMatch(/^driver +missing: .*cannot be opened.*install the NVIDIA driver/m)
    expect(stdout).toMatch(/^a worker +would compute with cpu-/m)
  })

  it('says that a worker that is to use a GPU could not run, and why: exit code 1', () => {
    const { status, stdout } = doctor(['--backend', 'cuda'], { SCMOE_CUDA_DRIVER: '/nowhere' })
    expect(status).toBe(1)
    expect(stdout).toMatch(/^a worker +could not run with cuda: .*\/nowhere, which cannot be opened/m)
  })

  it("with a GPU shows it, its software and NCCL's settings", () => {
    const { status, stdout } = doctor([], standInEnvironment({ NCCL_SOCKET_IFNAME: 'eth7' }))
    expect(status).toBe(0)
    expect(stdout).toMatch(/^GPU 0 +stand-in made of threads, compute capability 9\.0, 2\.0 GiB free of 2\.0 GiB$/m)
    expect(stdout).toMatch(/^driver +CUDA 13\.0, .*libcuda\.so\.1$/m)
    expect(stdout).toMatch(/^NCCL +NCCL 2\.27\.5, .*libnccl\.so\.2$/m)
    expect(stdout).toMatch(/^NCCL_SOCKET_IFNAME +eth7$/m)
    expect(stdout).toMatch(/^a worker +would compute on the GPU$/m)
  })

  it('refuses a peer or a rank that cannot be', () => {
    expect(doctor(['--peers', 'here']).stderr).toContain("--peers: 'here' must be host:port")
    expect(doctor(['--peers', 'a:1,b:2', '--rank', '2']).stderr).toContain(
      '--rank is 2, but --peers names ranks 0 to 1',
    )
  })

  it.each([
    ['cpu', {}],
    ['cuda', standInEnvironment()],
  ])('measures the link between ranks with %s', async (backend, environment) => {
    const ports = [await freePort(), await freePort()]
    const peers = ports.map(port => `127.0.0.1:${port}`).join(',')
    const measure = (rank: number) =>
      promisify(execFile)(
        process.execPath,
        [scmoe, 'doctor', '--json', '--backend', backend, '--peers', peers, '--rank', `${rank}`],
        { env: { ...process.env, ...environment } },
      )
    for (const { stdout } of await Promise.all([0, 1].map(measure))) {
      const { link } = JSON.parse(stdout)
      expect(link).toMatchObject({ ranks: 2, backend })
      expect(link.bytesPerSecond).toBeGreaterThan(1e6)
      expect(link.latencyMicroseconds).toBeGreaterThan(0)
    }
  })
})

// Tests of scmoe-run, which runs exported steps without Node, on the CPU and on a stand-in for a
// device (tests/native/standin), and of the script that runs all of them.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { configOf, LAYERS, layerCase, type Precision, schedulesOf, stepCase } from '../../../bench/gpu/cases.ts'
import { catalogue } from '../../../bench/gpu/catalogue.ts'
import type { RunFile } from '../../../bench/gpu/run-file.ts'
import { freePort } from '../../../tools/free-port.ts'
import type { Choice } from '../../../worker/schedule/schedule.ts'
import { BUILD_DEADLINE } from '../../support/build.ts'
import { distance } from '../../support/model-world.ts'
import { buildStandIns, emulatedEnvironment, standInEnvironment } from '../../support/standin.ts'

const root = join(import.meta.dirname, '../../..')
const program = join(root, 'build/native/scmoe-run')
const folder = mkdtempSync(join(tmpdir(), 'scmoe-run-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeAll(() => {
  buildStandIns('scmoe-run')
}, BUILD_DEADLINE)

const SIZES = {
  model: { kind: 'ScMoE', blocks: 4, hiddenSize: 32, heads: 2, feedForwardSize: 64, experts: 4, capacityFactor: '4' },
  sequence: 16,
  sequences: 4,
}
const sequential: Choice = { strategy: 'Sequential' }

function write(name: string, file: object): string {
  const path = join(folder, name)
  writeFileSync(path, JSON.stringify(file))
  return path
}

interface Result {
  engine: string
  steps: number
  milliseconds: number
  tokensPerSecond: number
  moeMicroseconds: number
  transfers: number
  emulatedTransferMicroseconds?: number
  transferMicroseconds: number
  reported: Record<string, number[]>
  ops: { label: string; start: number; end: number }[]
}

function run(words: string[], environment: NodeJS.ProcessEnv = {}) {
  const env = { ...process.env, ...environment }
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8', env })
  return { status, stderr, result: (): Result => JSON.parse(stdout) }
}

const STEPS = ['--warm-up', '1', '--steps', '4']

describe('scmoe-run', () => {
  it('trains the exported steps: losses fall from the logarithm of the vocabulary, the same on CPU and device', () => {
    const path = write('alone.json', stepCase('alone', SIZES, sequential).file)
    const cpu = run([path, ...STEPS]).result()
    const device = run([path, ...STEPS, '--backend', 'cuda'], standInEnvironment()).result()
    expect(cpu.engine).toMatch(/^cpu-/)
    expect(device.engine).toMatch(/^standin:0/)
    expect(device.reported).toEqual(cpu.reported)
    expect(cpu.reported['loss']).toHaveLength(5)
    expect(Math.abs((cpu.reported['loss']?.[0] ?? 0) - Math.log(256))).toBeLessThan(0.3)
    expect(cpu.reported['loss']?.[4]).toBeLessThan(cpu.reported['loss']?.[0] ?? 0)
    expect(cpu.steps).toBe(4)
    expect(cpu.ops.every(({ start, end }) => end >= start)).toBe(true)
    expect(cpu.tokensPerSecond).toBeCloseTo((1000 * 4 * 16) / cpu.milliseconds, 3)
  })

  it('gives the same losses on two ranks as on one', async () => {
    const [alone] = [run([write('one.json', stepCase('one', SIZES, sequential).file), ...STEPS]).result()]
    const peers = [await freePort(), await freePort()].map(port => `127.0.0.1:${port}`).join(',')
    const start = async (rank: number) => {
      const path = write(`two-${rank}.json`, stepCase('two', { ...SIZES, ranks: 2 }, sequential, rank).file)
      const words = [path, ...STEPS, '--backend', 'cuda', '--peers', peers]
      const child = spawn(program, words, { env: { ...process.env, ...standInEnvironment() } })
      const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
      expect([code, errors]).toEqual([0, expect.stringContaining('MiB needed')])
      const result: Result = JSON.parse(output)
      return result.reported['loss'] ?? []
    }
    for (const losses of await Promise.all([0, 1].map(start)))
      for (const [step, loss] of losses.entries()) expect(loss).toBeCloseTo(alone.reported['loss']?.[step] ?? 0, 4)
  })

  it('emulates transfers that take the share of the MoE layers asked for', () => {
    const path = write('share.json', stepCase('share', SIZES, sequential).file)
    const words = [path, '--warm-up', '1', '--steps', '3', '--backend', 'cuda', '--transfer-share', '0.5']
    const result = run(words, standInEnvironment()).result()
    expect(result.transfers).toBe(8)
    expect(result.emulatedTransferMicroseconds).toBeGreaterThan(0)
    // Copies alone take less than a tenth. A bound of a half would be too strict, because the speed
    // of the copies was measured at another moment.
    expect(result.transferMicroseconds).toBeGreaterThan(
      0.2 * result.transfers * (result.emulatedTransferMicroseconds ?? 0),
    )
  })

  it('runs the routed part of a layer, forward and backward', () => {
    for (const { experts } of LAYERS) {
      const small = { rows: 16 * experts, experts, hidden: 16, feedForward: 32 }
      const forward = run([write('forward.json', layerCase(small, false).file), ...STEPS]).result()
      const both = run([write('backward.json', layerCase(small, true).file), ...STEPS]).result()
      expect(both.reported).toEqual(forward.reported)
      expect(forward.reported['y']?.[0]).not.toBe(0)
      expect(both.ops.length).toBeGreaterThan(forward.ops.length)
    }
  })

  it('runs steps and layers in bfloat16 on a device that has it, close to float32, and says on a CPU that it cannot', () => {
    const emulated = ['--backend', 'cuda', '--no-graphs', '--warm-up', '0', '--steps', '3']
    const words = ['--warm-up', '0', '--steps', '3']
    const subjects = (precision: Precision) => ({
      loss: stepCase('step', { ...SIZES, precision }, sequential),
      y: layerCase({ rows: 32, experts: 2, hidden: 16, feedForward: 32, precision }, true),
    })
    const [half, single] = [subjects('bfloat16'), subjects('float32')]
    for (const name of ['loss', 'y'] as const) {
      const expected = run([write(`${name}.json`, single[name].file), ...words]).result().reported[name]
      const path = write(`${name}-bf16.json`, half[name].file)
      const found = run([path, ...emulated], emulatedEnvironment()).result().reported[name]
      expect(distance(found ?? [], expected ?? [])).toBeLessThan(2 ** -6)
      expect(distance(found ?? [], expected ?? [])).toBeGreaterThan(0)
      expect(run([path, ...words])).toMatchObject({
        status: 64,
        stderr: expect.stringMatching(/buffer '[\w.]+': dtype is bf16, and backend cpu-\w+ computes in f32 alone/),
      })
    }
  })

  it('runs a bare program, as the engine takes it', () => {
    const file: RunFile = stepCase('bare', SIZES, sequential).file
    const { result, stderr } = run([write('bare.json', file.programs[0] ?? {}), '--steps', '1'])
    expect(stderr).toContain('MiB needed')
    expect(result().ops.length).toBe(file.programs[0]?.ops.length)
  })

  it('ends with 69 and the reason where there is no GPU, with 64 where command or file are wrong', () => {
    const path = write('refused.json', stepCase('refused', SIZES, sequential).file)
    const missing = run([path, '--backend', 'cuda'], { SCMOE_CUDA_DRIVER: '/nowhere' })
    expect(missing.status).toBe(69)
    expect(missing.stderr).toMatch(/DEVICE_MISSING: .*install the NVIDIA driver/)
    for (const [option, value] of [
      ['--steps', 'some'],
      ['--transfer-share', 'half'],
      ['--transfer-share', '1'],
    ] as const)
      expect(run([path, option, value])).toMatchObject({
        status: 64,
        stderr: expect.stringContaining(`${option} is '${value}', wants a`),
      })
    const fills = [{ buffer: 'wte', kind: 'normal', std: 1, seed: 'one', first: 0 }]
    expect(run([write('seed.json', { ...stepCase('seed', SIZES, sequential).file, fills })])).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('a fill: seed is "one", wants an integer'),
    })
    expect(run([write('wrong.json', { title: 'wrong' })])).toMatchObject({ status: 64 })
    expect(run([join(folder, 'nowhere.json')])).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('nowhere.json cannot be read'),
    })
  })
})

describe('what is exported for a GPU', () => {
  it('has the models in both precisions, and layers and overlap in the one that they are trained in', () => {
    const cases = catalogue()
    const inHalf = new Set(
      [...cases].flatMap(([name, { emitted }]) =>
        emitted.buffers.some(({ dtype }) => dtype === 'bf16') ? [name] : [],
      ),
    )
    const models = ['gpt2-moe-small', 'd2048'].map(name => `model-${name}`)
    for (const name of ['peak', 'tiny', ...models]) {
      expect(cases.has(name)).toBe(true)
      expect([name, inHalf.has(name), inHalf.has(`${name}-bf16`)]).toEqual([name, false, true])
    }
    const others = [...cases.keys()].filter(name => /^(layer|overlap)-/.test(name))
    expect(others.length).toBe(4 + 5)
    expect(others.filter(name => !inHalf.has(name))).toEqual([])
  })

  it('has a schedule for each slot of the shortcut, and a sequential one', () => {
    const slots = schedulesOf(SIZES).map(choice => (choice.strategy === 'Shortcut' ? choice.forwardSlot : 0))
    expect(slots).toEqual([0, 1, 2, 3, 4])
    expect(configOf(SIZES).worldSize).toBe(1)
  })
})

describe('bench/gpu/run.sh', () => {
  const files = join(folder, 'files')
  const script = (environment: NodeJS.ProcessEnv) => {
    execFileSync('mkdir', ['-p', files])
    writeFileSync(join(files, 'tiny.json'), JSON.stringify(stepCase('tiny', SIZES, sequential).file))
    return spawnSync('bash', ['bench/gpu/run.sh', files, join(folder, 'results.json')], {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, ...environment },
    })
  }

  it('without a GPU prints the reason and exits 69', () => {
    const { status, stderr } = script({ SCMOE_CUDA_DRIVER: '/nowhere' })
    expect(status).toBe(69)
    expect(stderr).toMatch(/gpu: not run: .*DEVICE_MISSING.*install the NVIDIA driver/)
  })
})

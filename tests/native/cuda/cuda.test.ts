// Tests of the CUDA backend on machines without a GPU. It is compiled for the architectures that it
// supports. Its kernels run as host code, with a fiber for every thread of a block
// (tests/native/cuda/emulator), on the one list of cases of tests/native/ops, against the
// reference.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import { beforeAll, describe, expect, test } from 'vitest'

import { OPS } from '../../../worker/program/ops.ts'
import { BUILD_DEADLINE, build } from '../../support/build.ts'

const root = join(import.meta.dirname, '../../..')
const options = { cwd: root, encoding: 'utf8', stdio: 'pipe' } as const
const computeOps = Object.entries(OPS).flatMap(([op, spec]) => (spec.queue === 'compute' ? [op] : []))

async function run(folder: string, words: string[], seed = 0, settings: Record<string, string> = {}) {
  const env = { ...process.env, ...settings, SCMOE_EMULATOR_SEED: String(seed) }
  const child = spawn(join(root, 'build', folder, 'cuda_ops_test'), words, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr, [status]] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr),
    once(child, 'close'),
  ])
  return {
    status,
    stderr,
    lines: stdout
      .split('\n')
      .filter(Boolean)
      .map(line => line.split('\t')),
  }
}

/** Visits two items at a time, one for each processor of a small machine. */
async function inPairs<T>(list: readonly T[], visit: (item: T) => Promise<void>): Promise<void> {
  const left = [...list]
  const visitAll = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) await visit(next)
  }
  await Promise.all([visitAll(), visitAll()])
}

const wrong = (lines: string[][]) => lines.filter(line => line.at(-1) !== 'ok').map(line => line.join(' | '))

describe('the CUDA library', () => {
  let logs = ''
  beforeAll(() => {
    const home = execFileSync('bash', ['tools/cuda.sh'], options).trim()
    build('cuda', ['scmoe_cuda'], [`-DCUDA_ROOT=${home}`])
    logs = globSync(join(root, 'build/cuda/cuda/*.o.log'))
      .map(path => readFileSync(path, 'utf8'))
      .join('')
  }, BUILD_DEADLINE)

  test('offers one entry point, and leaves to its loader nothing but cuBLASLt', () => {
    const nm = (...words: string[]) =>
      execFileSync('nm', ['-D', '--format=just-symbols', ...words, 'build/cuda/libscmoe_cuda.so'], options).split('\n')
    expect(nm('--defined-only').filter(name => /scmoe/.test(name) && !name.startsWith('_Z'))).toEqual(['scmoe_device'])
    const needed = nm('--undefined-only').filter(name => /cuda|cublas|nccl/i.test(name))
    expect(needed.filter(name => !name.startsWith('cublasLt'))).toEqual([])
    expect(needed).toContain('cublasLtMatmul')
  })

  test('has every kernel for sm_80 and sm_90; none spills registers or needs more than an SM has', () => {
    const kernels = [
      ...logs.matchAll(
        /Compiling entry function '(\w+)' for '(\w+)'[\s\S]*?(\d+) bytes spill stores[\s\S]*?Used (\d+) registers(.*)/g,
      ),
    ].map(([, kernel = '', arch = '', spills, registers, rest = '']) => ({
      kernel,
      arch,
      spills: Number(spills),
      registers: Number(registers),
      shared: Number(/(\d+) bytes smem/.exec(rest)?.[1] ?? 0),
    }))
    const byArch = Map.groupBy(kernels, ({ arch }) => arch)
    expect([...byArch.keys()].toSorted()).toEqual(['sm_80', 'sm_90'])
    const names = (arch: string) =>
      byArch
        .get(arch)
        ?.map(({ kernel }) => kernel)
        .toSorted()
    expect(names('sm_80')).toEqual(names('sm_90'))
    expect(kernels.length).toBeGreaterThan(60)
    const greedy = kernels.filter(k => k.spills > 0 || k.registers * 256 > 65_536 || k.shared > 48 * 1024)
    expect(greedy).toEqual([])
  })
})

describe('its kernels, emulated', () => {
  let checks: string[][] = []
  /** The same checks with other orders of threads and blocks. */
  let reordered: string[][] = []
  beforeAll(async () => {
    build('native', ['cuda_ops_test'])
    // Each run has one thread.
    const runs = await Promise.all([0, 1].map(seed => run('native', [], seed)))
    const [first = [], second = []] = runs.map(({ lines }) => lines)
    checks = first
    reordered = second
  }, BUILD_DEADLINE)

  test('are the compute ops of the op table, in its order', async () => {
    expect((await run('native', ['--names'])).lines.map(([, , op]) => op)).toEqual(computeOps)
  })

  test('run where a missing synchronisation is found', () => {
    const lines = checks.filter(([what]) => what === 'emulator')
    expect(lines.length).toBe(5)
    expect(wrong(lines)).toEqual([])
  })

  test.each(computeOps)(
    '%s agrees with its reference, with equal bits whatever the order of threads and blocks',
    op => {
      const lines = checks.filter(([what, name]) => what === 'kernel' && name === op)
      expect(lines.length).toBeGreaterThan(0)
      expect(wrong(lines)).toEqual([])
    },
  )

  test('sum thousands of terms as exactly as PyTorch does in float32', { timeout: BUILD_DEADLINE }, async () => {
    const { status, lines } = await run('native', ['--long'])
    expect(lines.length).toBeGreaterThan(5)
    expect({ status, wrong: wrong(lines) }).toEqual({ status: 0, wrong: [] })
  })

  // Seen failing with the forward pass of attention left to its plain kernel.
  test('multiply bf16 on tensor cores wherever there is a kernel that does', () => {
    const lines = checks.filter(([what]) => what === 'tensor cores')
    const ops = ['attention', 'attention_backward', 'grouped_linear', 'grouped_linear_dgrad', 'grouped_linear_wgrad']
    expect(new Set(lines.map(([, op]) => op))).toEqual(new Set(ops))
    expect(wrong(lines)).toEqual([])
  })

  test.each(['chunks', 'shared heads', 'turn back', 'in place', 'taken'])('keep what schedules rely on: %s', what => {
    const lines = checks.filter(([name]) => name === what)
    expect(lines.length).toBeGreaterThan(0)
    expect(wrong(lines)).toEqual([])
  })

  // Two barriers cannot be found: they make the second of two sums in one block wait for the first,
  // but no kernel takes two.
  const CASES: Record<string, string> = {
    'attention.cu': 'attention B=1 T=70 H=2 KV=2',
    'attention_tensor.cu': 'attention B=2 T=130',
    'columns.cuh': 'layernorm',
    'device.cuh': 'cross_entropy',
    'embedding.cu': 'embedding',
    'grouped.cu': 'grouped_linear in=40',
    'loss.cu': 'cross_entropy',
    'rope.cu': 'rope',
    'router.cu': 'router',
    'tensor_tile.cuh': 'grouped_linear in=40',
    'tile.cuh': 'grouped_linear in=136',
  }
  test('are wrong without any one of their barriers, but those before a second sum in a block', async () => {
    const sources = globSync(join(root, 'worker/native/cuda/**/*.{cu,cuh}')).toSorted()
    const barriers = sources.flatMap(path =>
      readFileSync(path, 'utf8')
        .split('\n')
        .flatMap((text, line) =>
          text.includes('__syncthreads()') ? [{ file: basename(path), line: line + 1, text }] : [],
        ),
    )
    const isMissed = async ({ file, line }: (typeof barriers)[number]) => {
      for (const seed of [0, 1, 2]) {
        const leaveOut = { SCMOE_EMULATOR_LEAVE_OUT: `${file}:${line}` }
        if ((await run('native', [CASES[file] ?? ''], seed, leaveOut)).status !== 0) return false
      }
      return true
    }
    const missed: typeof barriers = []
    await inPairs(barriers, async barrier => {
      if (await isMissed(barrier)) missed.push(barrier)
    })
    expect(barriers.length).toBeGreaterThan(20)
    expect(missed.map(({ text }) => text).filter(text => !text.includes('of an earlier call'))).toEqual([])
    expect(missed.length).toBe(2)
  })

  // Seen failing, with the fused sums alone: sums not added to the gradient.
  test.each(['0', '1'])(
    'give a linear layer its gradients with sums over rows in the product or beside it (SCMOE_CUDA_FUSE=%s)',
    async fuse => {
      const { status, lines } = await run('native', ['linear'], 0, { SCMOE_CUDA_FUSE: fuse })
      expect(lines.filter(([, op]) => op === 'linear_wgrad').length).toBeGreaterThan(0)
      expect({ status, wrong: wrong(lines) }).toEqual({ status: 0, wrong: [] })
    },
  )

  test('agree in another order too', () => {
    expect(reordered.length).toBe(checks.length)
    expect(wrong(reordered)).toEqual([])
  })

  test('touch no memory that is not theirs, in a third order', { timeout: BUILD_DEADLINE }, async () => {
    build('native-address', ['cuda_ops_test'], ['-DSCMOE_SANITIZE=address,undefined'])
    const cases = new Set<string>()
    await inPairs(computeOps, async op => {
      const { status, stderr, lines } = await run('native-address', [`${op} `], 2)
      expect({ status, stderr, wrong: wrong(lines) }).toEqual({ status: 0, stderr: '', wrong: [] })
      for (const line of lines) cases.add(line.join(' '))
    })
    // The lines about tensor cores are for all ops together, not for single ones.
    const expected = checks.filter(([what]) => what !== 'tensor cores').map(line => line.join(' '))
    expect(expected.filter(line => !cases.has(line))).toEqual([])
  })
})

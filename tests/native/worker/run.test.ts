import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { API_VERSION, ENV, EXIT, KIND } from '../../../crds/contract.ts'
import { COMPILED } from '../../support/compiled.ts'
import { checkpointFolders, lossCurve, temporaryFolder, tinySpec, until } from '../../support/worker-gang.ts'

const SCMOE = join(import.meta.dirname, '../../../cli/scmoe.ts')

const children = new Set<ChildProcess>()
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
  children.clear()
})

function run(file: string, ...options: string[]) {
  const child = spawn(process.execPath, [SCMOE, 'run', file, ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A killed run leaves files in the temporary folder. This one is removed after the test.
    env: { ...process.env, ...COMPILED, TMPDIR: dirname(file) },
  })
  children.add(child)
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', chunk => {
    stdout += String(chunk)
  })
  child.stderr.on('data', chunk => {
    stderr += String(chunk)
  })
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>(resolve => {
    child.once('close', code => {
      children.delete(child)
      resolve({ code, stdout, stderr })
    })
  })
  return { child, ended, stderr: () => stderr }
}

function manifest(folder: string, spec: unknown): string {
  const file = join(folder, 'job.json')
  writeFileSync(file, JSON.stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'tiny' }, spec }))
  return file
}

/** The pids of a run's ranks, whose environment names this output folder. */
function ranksOf(output: string): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`${ENV.outputDirectory}=${output}\0`)
      } catch {
        return false
      }
    })
    .map(Number)
}

/** Throws if the run ends before. */
async function untilSteps({ child }: ReturnType<typeof run>, output: string, steps: number): Promise<void> {
  await until(() => {
    if (child.exitCode !== null) throw new Error(`the run ended early, with ${child.exitCode}`)
    return existsSync(join(output, 'losses.jsonl')) && lossCurve(output).size >= steps
  })
}

test('it trains, says how it went, and continues from its checkpoint when asked for more', async () => {
  const folder = temporaryFolder()
  const output = join(folder, 'out')
  const file = manifest(folder, tinySpec({ steps: 20, replicas: 2 }))
  const first = await run(file, '--output', output).ended
  expect(first).toMatchObject({ code: 0, stdout: expect.stringContaining(output) })
  const summary = readFileSync(join(output, 'summary.json'), 'utf8')
  const again = await run(file, '--output', output).ended
  expect(again).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^done {2}all steps were done already.*: 20 steps/),
  })
  expect(readFileSync(join(output, 'summary.json'), 'utf8'), 'with the figures of the run that trained').toBe(summary)
  const second = await run(file, '--output', output, '--steps', '30', '--replicas', '1', '--json').ended
  expect(second.code).toBe(0)
  expect(JSON.parse(second.stdout)).toMatchObject({
    name: 'tiny',
    exitCode: 0,
    trained: true,
    summary: { steps: 30, worldSize: 1 },
  })
  expect(lossCurve(output).size).toBe(30)
  expect(ranksOf(output)).toEqual([])
})

test('a second run of the folder is refused; Ctrl-C saves and stops the first, and nothing is left running', async () => {
  const folder = temporaryFolder()
  const output = join(folder, 'out')
  const file = manifest(folder, tinySpec({ steps: 100_000, replicas: 2, everySteps: 100_000 }))
  const first = run(file, '--output', output)
  const { child, ended } = first
  await untilSteps(first, output, 5)
  const second = await run(file, '--output', output).ended
  expect(second).toMatchObject({ code: 1, stderr: expect.stringContaining(`another run, process ${child.pid}`) })
  child.kill('SIGINT')
  expect((await ended).code).toBe(EXIT.terminated.code)
  expect(checkpointFolders(output)).toHaveLength(1)
  expect(ranksOf(output)).toEqual([])
})

test('Ctrl-C twice kills', async () => {
  const folder = temporaryFolder()
  const output = join(folder, 'out')
  const started = run(
    manifest(folder, tinySpec({ steps: 100_000, replicas: 2, everySteps: 100_000 })),
    '--output',
    output,
  )
  const { child, ended } = started
  await untilSteps(started, output, 5)
  for (const pid of ranksOf(output)) process.kill(pid, 'SIGSTOP')
  child.kill('SIGINT')
  // Two signals at the same time would arrive as one.
  await until(() => started.stderr().includes('press Ctrl-C again'))
  child.kill('SIGINT')
  expect((await ended).code).not.toBe(0)
  expect(ranksOf(output)).toEqual([])
})

test('one rank dies: the others are ended and the dead one is named', async () => {
  const folder = temporaryFolder()
  const output = join(folder, 'out')
  const started = run(
    manifest(
      folder,
      tinySpec({
        steps: 100_000,
        replicas: 3,
        rest: { model: { experts: 3 }, training: { steps: 100_000, globalBatchSequences: 3, sequenceLength: 32 } },
      }),
    ),
    '--output',
    output,
  )
  await untilSteps(started, output, 5)
  for (const pid of ranksOf(output)) {
    if (readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`${ENV.rank}=2\0`)) process.kill(pid, 'SIGKILL')
  }
  const { code, stderr } = await started.ended
  expect(code).toBe(137)
  expect(stderr).toMatch(/rank 2: ended with code 137/)
  expect(ranksOf(output)).toEqual([])
})

test("a failure is the first failing rank's own message and code", async () => {
  const folder = temporaryFolder()
  const file = manifest(folder, tinySpec({ steps: 10, replicas: 2, rest: { data: { path: '/no/such/file' } } }))
  const { code, stderr } = await run(file, '--output', join(folder, 'out')).ended
  expect(code).toBe(EXIT.badData.code)
  expect(stderr).toMatch(/failed.*rank \d: The data \/no\/such\/file cannot be read: ENOENT/)
})

// Seen to hang: mkdir with `recursive` in /proc.
test.each(['/proc/x', '/proc/x/y', '/proc/self', '/dev/null', '/dev/null/x'])(
  '--output %s, where nothing can be written, is refused',
  async output => {
    const { code, stderr } = await run(
      manifest(temporaryFolder(), tinySpec({ steps: 1, replicas: 1 })),
      '--output',
      output,
    ).ended
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^the output folder \S+ cannot be (created|written) \([A-Z]+: .*\): give another with --output\n$/,
    )
  },
)

test('killed itself, its ranks end too', async () => {
  const folder = temporaryFolder()
  const output = join(folder, 'out')
  const started = run(
    manifest(folder, tinySpec({ steps: 1_000_000, replicas: 2, everySteps: 1_000_000 })),
    '--output',
    output,
  )
  const { child, ended } = started
  await untilSteps(started, output, 5)
  expect(ranksOf(output)).toHaveLength(2)
  child.kill('SIGKILL')
  await ended
  await until(() => ranksOf(output).length === 0)
})

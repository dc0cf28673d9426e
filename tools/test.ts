// npm test: runs every check and ends with one line `N passed, N failed, N skipped`. Stages that
// mostly wait run beside stages that compute; their output is shown in order.
//   node tools/test.ts [STAGE...]      run only these stages, e.g. `types unit`
//   --list                             list the stages
// A stage without tests of its own, such as types or lint, counts as one test.

import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { InOrder, type Writer } from './in-order.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const reports = `${root}build/test`

interface Count {
  passed: number
  failed: number
  skipped: number
}

type Stage = { name: string; run: (output: Writer) => Promise<Count> }

/** Time for the last output of a command, whose pipes a process left behind may keep open. */
const DRAIN_MILLISECONDS = 2000

/**
 * Runs a command and passes its output on; resolves with its exit code, or 128 if it was killed.
 */
function command(name: string, args: readonly string[], output: Writer): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    const write = (text: string) => output.write(text)
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', write)
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)))
    child.on('exit', () =>
      setTimeout(() => [child.stdout, child.stderr].map(stream => stream.destroy()), DRAIN_MILLISECONDS).unref(),
    )
  })
}

const check = (name: string, ...steps: readonly (readonly [string, ...string[]])[]): Stage => ({
  name,
  run: async output => {
    let failed = 0
    for (const [program, ...args] of steps) if ((await command(program, args, output)) !== 0) failed = 1
    return { passed: 1 - failed, failed, skipped: 0 }
  },
})

interface VitestReport {
  numPassedTests: number
  numFailedTests: number
  numPendingTests: number
  numFailedTestSuites: number
  testResults: { name: string; message: string; assertionResults: { status: string; fullName: string }[] }[]
}

/** A vitest project, counted from its JSON report; a file that fails to load is a failure. */
const vitest = (project: string): Stage => ({
  name: project,
  run: async output => {
    const file = `${reports}/${project}.json`
    rmSync(file, { force: true })
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
    // An environment variable would also change the output of the programs under test.
    const colour = process.stdout.isTTY ? ['--color'] : []
    const code = await command('vitest', ['run', '--project', project, ...reporters, ...colour], output)
    const report = readReport(file)
    if (report === undefined) return { passed: 0, failed: 1, skipped: 0 }
    const broken = report.testResults.filter(r => r.assertionResults.length === 0 && r.message !== '').length
    const failed = report.numFailedTests + broken
    return {
      passed: report.numPassedTests,
      failed: failed === 0 && code !== 0 ? 1 : failed,
      skipped: report.numPendingTests,
    }
  },
})

function readReport(file: string): VitestReport | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as VitestReport
  } catch {
    return undefined
  }
}

/**
 * Lanes run in parallel; the stages of a lane run one after another. The stages of the last two
 * lanes wait for servers and deadlines most of their time.
 */
const LANES: readonly (readonly Stage[])[] = [
  [
    check('types', ['tsc', '-p', '.']),
    check('lint', ['oxlint', '--quiet']),
    check('format', ['biome', 'check', '--error-on-warnings', '.'], ['bash', 'tools/clang-format.sh', '--check']),
    check('dead code', ['knip', '--no-progress']),
    vitest('unit'),
    vitest('native'),
    vitest('gpu'),
  ],
  [vitest('api')],
  [vitest('cluster')],
]
const stages = LANES.flat()

async function main(names: readonly string[]): Promise<number> {
  if (names.includes('--list')) {
    console.log(stages.map(s => s.name).join('\n'))
    return 0
  }
  const unknown = names.filter(n => !stages.some(s => s.name === n))
  if (unknown.length > 0) {
    console.error(`no such stage: ${unknown.join(', ')}; choose from ${stages.map(s => s.name).join(', ')}`)
    return 2
  }
  mkdirSync(reports, { recursive: true })
  console.log(`${availableParallelism()} cores, node ${process.version}`)
  const started = performance.now()
  const results = await runLanes(stage => names.length === 0 || names.includes(stage.name))
  const total = { passed: 0, failed: 0, skipped: 0 }
  console.log()
  for (const { name, count, seconds } of results) {
    for (const kind of ['passed', 'failed', 'skipped'] as const) total[kind] += count[kind]
    console.log(`  ${name.padEnd(10)} ${seconds.toFixed(1).padStart(7)} s   ${counted(count)}`)
  }
  console.log(`\n${((performance.now() - started) / 1000).toFixed(0)} s in all\n${counted(total)}`)
  return total.failed === 0 && total.passed + total.skipped > 0 ? 0 : 1
}

const counted = ({ passed, failed, skipped }: Count) => `${passed} passed, ${failed} failed, ${skipped} skipped`

type Result = { name: string; count: Count; seconds: number }

async function runLanes(wanted: (stage: Stage) => boolean): Promise<Result[]> {
  const order = new InOrder(text => process.stdout.write(text))
  const lanes = LANES.map(lane => lane.filter(wanted).map(stage => ({ stage, output: order.writer() })))
  const results = await Promise.all(
    lanes.map(async lane => {
      const done: Result[] = []
      for (const { stage, output } of lane) done.push(await runStage(stage, output))
      return done
    }),
  )
  return results.flat()
}

async function runStage({ name, run }: Stage, output: Writer): Promise<Result> {
  const started = performance.now()
  output.write(`\n== ${name}\n`)
  const count = await run(output)
  const seconds = (performance.now() - started) / 1000
  if (!output.isShown) console.log(`(${name} is done: ${counted(count)}; its output follows below)`)
  output.close()
  return { name, count, seconds }
}

process.exitCode = await main(process.argv.slice(2))

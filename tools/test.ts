// `npm test`: every check, one after another, and one closing line `N passed, N failed, N skipped`.
//   node tools/test.ts [STAGE...]      only these stages, e.g. `types unit`
//   --list                             the stages
// A stage without tests of its own (types, lint, ...) counts as one.

import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const reports = `${root}build/test`

interface Count {
  passed: number
  failed: number
  skipped: number
}

type Stage = { name: string; run: () => Promise<Count> }

/** Runs a command with its output shown; resolves with its exit code (128 + signal when killed). */
function command(name: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)))
  })
}

const check = (name: string, ...steps: readonly (readonly [string, ...string[]])[]): Stage => ({
  name,
  run: async () => {
    let failed = 0
    for (const [program, ...args] of steps) if ((await command(program, args)) !== 0) failed = 1
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

/** A vitest project; the JSON report is what is counted, so a file that fails to load counts as a failure too. */
const vitest = (project: string): Stage => ({
  name: project,
  run: async () => {
    const file = `${reports}/${project}.json`
    rmSync(file, { force: true })
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
    const code = await command('vitest', ['run', '--project', project, ...reporters])
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

const stages: Stage[] = [
  check('types', ['tsc', '-p', '.']),
  check('lint', ['oxlint', '--quiet']),
  check('format', ['biome', 'check', '--error-on-warnings', '.'], ['bash', 'tools/clang-format.sh', '--check']),
  check('dead code', ['knip', '--no-progress']),
  vitest('unit'),
  vitest('native'),
  vitest('api'),
  vitest('cluster'),
  vitest('gpu'),
]

async function main(names: readonly string[]): Promise<number> {
  if (names.includes('--list')) {
    console.log(stages.map(s => s.name).join('\n'))
    return 0
  }
  const unknown = names.filter(n => !stages.some(s => s.name === n))
  if (unknown.length > 0) {
    console.error(`no such stage: ${unknown.join(', ')}; there are: ${stages.map(s => s.name).join(', ')}`)
    return 2
  }
  mkdirSync(reports, { recursive: true })
  const total: Count = { passed: 0, failed: 0, skipped: 0 }
  const rows: string[] = []
  console.log(`${availableParallelism()} cores, node ${process.version}`)
  for (const stage of stages.filter(s => names.length === 0 || names.includes(s.name))) {
    console.log(`\n== ${stage.name}`)
    const started = performance.now()
    const count = await stage.run()
    total.passed += count.passed
    total.failed += count.failed
    total.skipped += count.skipped
    const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(7)
    rows.push(
      `${stage.name.padEnd(10)} ${seconds} s   ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`,
    )
  }
  console.log(`\n${rows.map(r => `  ${r}`).join('\n')}\n`)
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
  return total.failed === 0 && total.passed + total.skipped > 0 ? 0 : 1
}

process.exitCode = await main(process.argv.slice(2))

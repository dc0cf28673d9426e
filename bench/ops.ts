// Measures each CPU kernel at training shapes, compares it with the machine's peak in the same run,
// and checks its results.
//
//   npm run bench:ops [-- [OP] [--threads N] [--json FILE]]      runs only ops that begin with OP
//
// "% peak" compares products with our fastest matrix product (GF/s), and other ops with the fastest
// copy that touches as many bytes (GB/s). Bytes are those of inputs read and outputs written;
// outputs that are added to count twice. A copy that fits a cache runs in the cache too. An op that
// only reads, only writes or works in place has more of its bytes in a cache, so its share may be
// above 100 %.
//
// "#wrong" counts the values that differ from the plain loops that define the op by more than 1e-4
// of themselves, or of their buffer's root mean square if that is larger. Choices and counts must
// be equal.
//
// One thread is timed by its own processor time, several threads by the clock. The fastest of many
// runs counts.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { fixed, machine, showFigures, writeJson } from './report.ts'
import { atMost, type Figure } from './turns/figures.ts'
import { sentenceOf, Watch } from './turns/watch.ts'

/** The best rate that this machine reaches, in `unit`. */
interface Peak {
  name: string
  rate: number
  unit: string
}

interface Row {
  op: string
  shape: string
  microseconds: number
  rate: number
  unit: string
  shareOfPeak: number
  wrong: number
  values: number
}

const root = join(import.meta.dirname, '..')
const folder = join(root, 'build/native')

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' }, threads: { type: 'string', default: '1' } },
})
const threads = Number(options.threads)
if (!Number.isInteger(threads) || threads < 1) throw new Error(`--threads is ${options.threads}: give 1 or more`)

function build(): string {
  execFileSync('cmake', ['-S', 'worker/native', '-B', folder, '-G', 'Ninja'], { cwd: root, stdio: 'pipe' })
  execFileSync('ninja', ['-C', folder, 'ops_test'], { cwd: root, stdio: 'pipe' })
  return join(folder, 'ops_test')
}

/** Parses a line of `ops_test --time` (tests/native/ops/time.cc). */
function parse(line: string): Peak | Row {
  const [kind, ...cells] = line.split('\t')
  const text = (at: number) => cells[at] ?? ''
  const number = (at: number) => Number(text(at))
  if (kind === 'peak') return { name: text(0), rate: number(1), unit: text(2) }
  return {
    op: text(0),
    shape: text(1),
    microseconds: number(2) * 1e6,
    unit: text(3),
    rate: number(4),
    shareOfPeak: number(5),
    wrong: number(6),
    values: number(7),
  }
}

const columns = (op: string, shape: string, ...rest: [string, string, string, string]) =>
  [op.padEnd(22), shape.padEnd(67), ...rest.map((cell, at) => cell.padStart(at === 1 ? 12 : 9))].join(' ')

const shown = (row: Row) =>
  columns(
    row.op,
    row.shape,
    fixed(row.microseconds, 1) ?? '',
    `${fixed(row.rate, 1)} ${row.unit}`,
    fixed(100 * row.shareOfPeak, 1) ?? '',
    String(row.wrong),
  )

interface Run {
  code: number
  peaks: Peak[]
  rows: Row[]
}

/** Runs the kernels' program once; each row is shown as it comes. */
async function measure(command: string): Promise<Run> {
  const program = spawn(command, ['--time', ...positionals, String(threads)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = once(program, 'close')
  const run: Run = { code: 0, peaks: [], rows: [] }
  for await (const line of createInterface({ input: program.stdout })) {
    const parsed = parse(line)
    if ('op' in parsed) {
      if (run.rows.length === 0) {
        console.log(`#\n${columns('# op', 'shape', 'time', 'rate', '% peak', '#wrong')}`)
        console.log(columns('#', '', 'us', '', '', ''))
      }
      run.rows.push(parsed)
      console.log(shown(parsed))
    } else {
      run.peaks.push(parsed)
      console.log(`# peak: ${parsed.name} ${fixed(parsed.rate, 1)} ${parsed.unit}`)
    }
  }
  const [code] = await closed
  return { ...run, code: Number(code) }
}

const command = build()
const watch = new Watch()
console.log(`# ${machine()}; ${threads} thread${threads === 1 ? '' : 's'}`)
const { code, peaks, rows } = await watch.turn(() => measure(command))
if (code === 0 && rows.length === 0)
  throw new Error(
    `no op that is timed begins with '${positionals[0] ?? ''}'; give the first letters of an op of worker/program/ops.ts`,
  )
const wrong = rows.reduce((sum, row) => sum + row.wrong, 0)
const right = atMost(0)
// The program keeps the fastest of its runs, so there are no samples for an interval.
const figures: Figure[] = [
  { name: 'wrong values', value: wrong, unit: '', aim: right.text, met: right.isMet(wrong), low: null, high: null },
  ...peaks.map(({ name, rate, unit }) => {
    return { name: `peak: ${name}`, value: rate, unit, aim: null, met: null, low: null, high: null }
  }),
]
console.log(`#\n# wrong values: ${wrong} of ${rows.reduce((sum, row) => sum + row.values, 0)}`)
console.log(`\n${showFigures(figures)}\n\n${sentenceOf(watch.disturbance)}`)
const { disturbance } = watch
writeJson(options.json, { bench: 'ops', machine: machine(), threads, disturbance, figures, peaks, rows })
if (code !== 0) process.exitCode = 1

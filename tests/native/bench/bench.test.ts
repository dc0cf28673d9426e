// Tests of the benchmarks in their quick form: they run to the end, compute the right result and
// write the promised rows. Speed is not tested.

import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import type { Figure } from '../../../bench/turns/figures.ts'
import type { Disturbance } from '../../../bench/turns/watch.ts'
import { obstacle } from '../../../bench/world/network.ts'

const root = join(import.meta.dirname, '../../..')
const folder = mkdtempSync(join(tmpdir(), 'scmoe-bench-'))
afterAll(() => rmSync(folder, { recursive: true }))
const DEADLINE = 90_000
const EXPECTED = [
  'Top2  Sequential',
  'Top2  Pipelined',
  'Top1  Sequential',
  'SharedExpert  Sequential',
  'ScMoE 1 Auto',
  'ScMoE 2 Auto',
  'ScMoE 3 Auto',
  'ScMoE 2 Shortcut',
]

interface Result {
  rows: Record<string, string | number | null>[]
  figures: Figure[]
  disturbance: Disturbance
}

/** Every benchmark has figures and says how disturbed it was. */
function expectFigures({ figures, disturbance }: Result): void {
  expect(figures.length).toBeGreaterThan(0)
  for (const { name, value, aim, met, low, high } of figures) {
    expect(Number.isFinite(value), name).toBe(true)
    expect(met === null, name).toBe(aim === null)
    if (low !== null && high !== null) expect([low, value, high].toSorted((a, b) => a - b)).toEqual([low, value, high])
  }
  expect(disturbance.turns).toBeGreaterThan(0)
  expect(disturbance.disturbed).toBeLessThanOrEqual(disturbance.turns)
}

async function bench(name: string, ...words: string[]): Promise<Result> {
  const file = join(folder, `${name}.json`)
  const command = [join(root, 'bench', `${name}.ts`), '--quick', '--json', file, ...words]
  // After the timeout the process gets SIGTERM and ends its ranks and their networks.
  await promisify(execFile)(process.execPath, command, { timeout: DEADLINE - 5000 })
  return JSON.parse(readFileSync(file, 'utf8')) as Result
}

const reason = obstacle()
if (reason !== undefined) console.warn(`skipped: ${reason}`)

describe.skipIf(reason !== undefined)('benchmarks', { timeout: DEADLINE }, () => {
  // The benchmark itself fails if ranks disagree or a schedule changes a bit of loss or norm.
  it('overlap has a row for every kind and schedule of a regime and phase', async () => {
    const result = await bench('overlap', '--regimes', '50', '--phases', 'train,forward')
    const { rows } = result
    expectFigures(result)
    expect(result.figures.map(({ name, aim }) => `${name}: ${aim}`)).toEqual(
      expect.arrayContaining([
        '50 %, train: times as fast as sequential Top2: >= 1.4',
        '50 %, forward: hidden: >= 98',
        '50 %, train: over pipelined Top2: > 1',
      ]),
    )
    for (const phase of ['train', 'forward']) {
      const own = rows.filter(row => row['phase'] === phase)
      const strategies = own.map(row => `${row['kind']} ${row['position'] ?? ''} ${row['strategy']}`)
      expect(strategies).toEqual(expect.arrayContaining(EXPECTED))
      expect(own.filter(row => row['strategy'] === 'Pipelined').map(row => row['chunks'])).toEqual([2, 4, 8])
      const slots = own.filter(row => row['strategy'] === 'Shortcut' && row['chunks'] === 1).map(row => row['slot'])
      // A slot that Auto chooses as well has a row of its own beside that of Auto.
      expect(new Set(slots)).toEqual(new Set([1, 2, 3, 4]))
    }
    for (const row of rows)
      for (const column of [
        'tokensPerSecond',
        'ratioToTop2',
        'ratioToBound',
        'predictedOverMeasured',
        'commShareOfMoe',
      ])
        expect(Number.isFinite(row[column]), `${column} of ${row['model']}`).toBe(true)
    const [first] = rows
    expect(first).toMatchObject({ regime: 50, kind: 'Top2', strategy: 'Sequential', ratioToTop2: 1 })
  })

  it('step has a row for both kinds with and without a limit', async () => {
    const result = await bench('step')
    const { rows } = result
    expectFigures(result)
    expect(rows.map(row => `${row['kind']} ${row['strategy']} ${row['linkMbit']}`)).toEqual(
      [null, 300].flatMap(link =>
        ['Top2', 'ScMoE'].flatMap(kind => ['Sequential', 'Auto'].map(strategy => `${kind} ${strategy} ${link}`)),
      ),
    )
    for (const row of rows) expect(row['percentOfGemmPeak']).toBeGreaterThan(0)
  })

  it('exchange has a rate for every size', async () => {
    const result = await bench('exchange')
    const { rows } = result
    expectFigures(result)
    expect(rows.length).toBe(1)
    expect(rows[0]?.['megabytesPerSecond']).toBeGreaterThan(0)
  })
})

// Tests of bench/gpu/run.sh as a whole, on a stand-in for a device (tests/native/standin), and of
// the figures that are worked out from its results. Sizes are small and speeds are a processor's,
// so the tests check that figures agree with one another, not how large they are.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { catalogue } from '../../../bench/gpu/catalogue.ts'
import { type Figures, figuresOf } from '../../../bench/gpu/figures.ts'
import { type Measured, measuredOf, Results } from '../../../bench/gpu/results.ts'
import { tables } from '../../../bench/gpu/table.ts'
import { freePort } from '../../../tools/free-port.ts'
import { durations, makespan } from '../../../worker/schedule/schedule.ts'
import { BUILD_DEADLINE } from '../../support/build.ts'
import { buildStandIns, standInEnvironment } from '../../support/standin.ts'

const root = join(import.meta.dirname, '../../..')
const folder = mkdtempSync(join(tmpdir(), 'scmoe-gpu-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const MODEL = {
  kind: 'ScMoE',
  blocks: 4,
  hiddenSize: 64,
  heads: 2,
  feedForwardSize: 128,
  experts: 4,
  capacityFactor: '4',
}
const SIZES = { model: MODEL, sequence: 32, sequences: 4 }
const CASES = catalogue({
  tiny: SIZES,
  models: { small: SIZES },
  layers: [{ rows: 64, experts: 1, hidden: 32, feedForward: 64 }],
  overlap: SIZES,
  peak: { side: 256, bytes: 2 ** 22 },
})

let results: Results
let figures: Figures

beforeAll(async () => {
  buildStandIns('scmoe-run', 'cuda_device_test')
  const files = join(folder, 'files')
  mkdirSync(files)
  for (const [name, { file }] of CASES) writeFileSync(join(files, `${name}.json`), JSON.stringify(file))
  const path = join(folder, 'results.json')
  const env = {
    ...process.env,
    ...standInEnvironment(),
    SCMOE_PORT: String(await freePort()),
    SCMOE_OPS_WORDS: '--f32',
  }
  const options = { cwd: root, encoding: 'utf8', env } as const
  const { status, stderr } = spawnSync('bash', ['bench/gpu/run.sh', files, path], options)
  if (status !== 0 || stderr !== '') throw new Error(`run.sh ended with ${status}: ${stderr}`)
  results = Results.parse(JSON.parse(readFileSync(path, 'utf8')))
  figures = figuresOf(results, CASES)
}, BUILD_DEADLINE)

/** The results with other times in the rows that `times` knows. */
function withTimes(times: (name: string, row: Measured) => Partial<Measured> | undefined): Results {
  const rows = results.rows.map(row => {
    const measured = measuredOf(results, row.case)
    return measured ? { ...row, result: { ...measured, ...times(row.case, measured) } } : row
  })
  return { ...results, rows }
}

describe('what bench/gpu/run.sh measured', () => {
  it('is a row for every case and way of running it, none failed', () => {
    expect(figures.failed).toEqual([])
    expect(figures.models.map(model => model.case)).toEqual(['model-small'])
    expect(figures.layers.map(({ layer }) => layer)).toEqual([0])
    expect(figures.overlap.map(({ slot, transferShare }) => [slot, transferShare])).toEqual(
      [null, 1, 2, 3, 4].flatMap(slot => [0.15, 0.5, 0.6].map(share => [slot, share])),
    )
  })

  it('says that ops are right, losses equal on CPU and device, as a graph and on two ranks, and how a rank ends whose peer was killed', () => {
    expect(figures.ops).toBe('passed')
    expect(figures.losses).toMatchObject({ gpuBesideCpu: 0, graphBesideEager: 0 })
    expect(figures.losses.twoRanksBesideOne).toBeLessThan(1e-5)
    expect(figures.rankKilled).toMatchObject({ exitCode: 1, message: expect.stringMatching(/PEER_LOST: .*rank 1/) })
  })

  it('gives each op its share of the step and of the peak, and the step its share of the fastest product', () => {
    const [model] = figures.models
    if (!model) throw new Error('no model was measured')
    const { mfu, ops, milliseconds } = model
    const subject = CASES.get('model-small')
    const peak = figures.peaks.float32?.flopsPerSecond ?? 0
    expect(mfu).toBeCloseTo((subject?.file.flops ?? 0) / (milliseconds * 1e-3) / peak, 12)
    const compute = ops.filter(({ op }) => !op.startsWith('all_'))
    expect(compute.reduce((sum, { shareOfTime }) => sum + shareOfTime, 0)).toBeCloseTo(1, 9)
    expect(compute.every(({ shareOfPeak }) => (shareOfPeak ?? 0) > 0)).toBe(true)
    const linear = ops.find(({ op }) => op === 'linear')
    const products = subject?.emitted.ops.filter(({ op }) => op === 'linear') ?? []
    const work = products.reduce((sum, { cost }) => sum + cost, 0)
    expect(linear?.shareOfPeak).toBeCloseTo(work / ((linear?.microseconds ?? 0) * 1e-6) / peak, 12)
  })

  it('takes given peaks instead of the measured ones', () => {
    const given = figuresOf(results, CASES, {
      float32: { flopsPerSecond: 2 * (figures.peaks.float32?.flopsPerSecond ?? 0) },
    })
    expect(given.models[0]?.mfu).toBeCloseTo((figures.models[0]?.mfu ?? 0) / 2, 12)
  })

  // The durations of the ops are measured. The times at which they run come from the predictor, for
  // a device that loses 30 % of its speed while a transfer runs.
  it('finds hidden share, bound, prediction and contention of a device that behaves as the predictor says', () => {
    const free = measuredOf(results, 'overlap-0-free')
    const first = CASES.get('overlap-0')
    if (!free || !first) throw new Error('overlap-0-free is not there')
    const { emitted } = first
    const of = (key: 'start' | 'end') => Float64Array.from(free.ops, op => op[key])
    const own = durations(emitted, first.scheduled, { start: of('start'), end: of('end') })
    const transferOfOne = own.reduce((sum, time) => sum + time, 0) / 100
    const simulated = withTimes((name, row) => {
      const [, index, way] = /^(overlap-\d+)-(.*)$/.exec(name) ?? []
      const subject = CASES.get(index ?? '')
      if (!subject) return undefined
      const transfer = way === 'free' ? 0 : transferOfOne
      const changed = own.map((time, op) => (emitted.ops[op]?.op === 'all_to_all' ? transfer : time))
      const spans = makespan(subject.scheduled, emitted, { times: [changed], contention: 0.3, latency: 0 })
      const at = (times: Float64Array | undefined, op: number) => times?.[op] ?? 0
      const ops = row.ops.map(({ label }, i) => {
        return { label, start: at(spans.start, i), ready: at(spans.ready, i), end: at(spans.end, i) }
      })
      const milliseconds = spans.total / 1000
      return { ops, milliseconds, freeMilliseconds: milliseconds / 2, emulatedTransferMicroseconds: transferOfOne }
    })
    const { overlap, contention } = figuresOf(simulated, CASES)
    // Counts and sums slow down compute as well, in both runs, at different places.
    expect(contention?.all).toBeCloseTo(0.3, 3)
    expect(contention?.products).toBeCloseTo(0.3, 3)
    for (const row of overlap) {
      expect(row.predictedOverMeasured).toBeCloseTo(1, 3)
      expect(row.ofBound).toBeCloseTo(0.5, 9)
      if (row.slot === null) expect(row.hiddenPercent).toBeLessThan(1)
    }
    const best = Math.max(...overlap.map(({ hiddenPercent }) => hiddenPercent))
    expect(best).toBeGreaterThan(50)
  })

  it('is refused where a row is of other programs than these', () => {
    const other = withTimes((name, row) => (name === 'model-small' ? { ops: row.ops.slice(1) } : undefined))
    expect(() => figuresOf(other, CASES)).toThrow(/row model-small: op 0 is '.+', the case has '.+'; evaluate with/)
  })

  it('is shown as docs/performance.md has it', () => {
    const shown = tables(figures)
    expect(shown).toMatch(/^\| What \| Wanted \| Measured \|\n\| --- \| --- \| --- \|\n/)
    expect(shown).toMatch(/\| K=2 \| 60 % \| [\d.]+ \| [\d.]+ \| [\d.]+ % \| [\d.]+ \|/)
    expect(shown).not.toMatch(/NaN|undefined|null/)
  })
})

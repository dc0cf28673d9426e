// Tests bench:operator in its quick form: it runs to the end and writes the promised figures. Speed
// is not tested.

import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { z } from 'zod'

const folder = mkdtempSync(join(tmpdir(), 'scmoe-bench-operator-test-'))
afterAll(() => rmSync(folder, { recursive: true }))

const rate = z.number().positive()
const Result = z.strictObject({
  bench: z.literal('operator'),
  machine: z.string(),
  date: z.iso.date(),
  command: z.string(),
  jobs: z.literal(6),
  workersPerJob: z.literal(2),
  podsPerSecond: rate,
  baselinePodsPerSecond: rate,
  createToLastPodMs: z.strictObject({ p50: rate, p99: rate }),
  recoveryPodsPerSecond: rate,
  rssMiB: z.strictObject({ '0': rate, '2': rate, '4': rate, '6': rate }),
  writesPerJob: rate,
  idleWritesPerHour: z.number().min(0),
  takeoverSeconds: z.strictObject({ kill: rate, graceful: rate }),
  restCpuPercent: rate,
})

it('bench:operator has a figure for every target, and a row for the loop, the operator and JobSet', {
  timeout: 300_000,
}, async () => {
  const file = join(folder, 'operator.json')
  const { stdout } = await promisify(execFile)(process.execPath, ['bench/operator.ts', '--quick', '--json', file])
  const result = Result.parse(JSON.parse(readFileSync(file, 'utf8')))
  for (const row of ['bare loop', 'scmoe', 'jobset']) expect(stdout).toMatch(new RegExp(`^${row} +\\d`, 'm'))
  // A life without failures: four writes for two pods, Service and budget, three states with their
  // events, and the last report.
  expect(result.writesPerJob).toBeLessThanOrEqual(12)
  expect(result.idleWritesPerHour).toBe(0)
})

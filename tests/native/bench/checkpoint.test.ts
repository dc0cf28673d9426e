import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { COMPILED } from '../../support/compiled.ts'
import { temporaryFolder } from '../../support/worker-gang.ts'

const ROOT = join(import.meta.dirname, '../../..')
const positive = z.number().positive()
const Result = z.object({
  disturbance: z.object({ turns: z.int().positive() }),
  figures: z.array(z.object({ name: z.string(), value: z.number(), aim: z.literal('<= 0.1'), met: z.boolean() })),
  rows: z.array(
    z.object({
      ranks: z.int(),
      megabytes: positive,
      stepMilliseconds: positive,
      copyMilliseconds: positive,
      writeMilliseconds: positive,
      stalledMilliseconds: positive,
      stepSlowdownPercent: z.number(),
      stepsBesideOne: positive,
      costPercent: z.number(),
    }),
  ),
})

const leftovers = () => readdirSync(join(ROOT, 'build')).filter(name => name.startsWith('bench-checkpoint-'))

// Seen failing with steps beside a write that counted as quiet ones, and with a folder left behind.
test('the benchmark of what a checkpoint costs has figures for one rank and for two, and leaves nothing', async () => {
  const before = leftovers()
  const file = join(temporaryFolder(), 'result.json')
  const env = { ...process.env, ...COMPILED }
  await promisify(execFile)(process.execPath, [join(ROOT, 'bench/checkpoint.ts'), '--quick', '--json', file], { env })
  const { rows, figures } = Result.parse(JSON.parse(readFileSync(file, 'utf8')))
  expect(rows.map(({ ranks }) => ranks)).toEqual([1, 2])
  expect(figures.map(({ value }) => value)).toEqual(rows.map(({ costPercent }) => costPercent / 100))
  for (const row of rows) {
    expect(row.stalledMilliseconds).toBeGreaterThanOrEqual(row.copyMilliseconds)
    // 0.2 million parameters with two moments each.
    expect(row.megabytes).toBeGreaterThan(2)
  }
  expect(leftovers()).toEqual(before)
})

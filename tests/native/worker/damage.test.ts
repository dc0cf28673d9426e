// Tests of checkpoints that are damaged, that are of another model, or that cannot be written.

import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { EXIT } from '../../../crds/contract.ts'
import { listSteps } from '../../../worker/checkpoint/contents.ts'
import { mountDisk, unmountAll } from '../../support/files/mounts.ts'
import {
  checkpointFolders,
  lossCurve,
  type RankEnd,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  until,
  wholeCheckpoints,
} from '../../support/worker-gang.ts'

const logOf = (ends: readonly RankEnd[]) => ends.map(({ log }) => log).join('')

describe('a damaged checkpoint is skipped by all ranks, with a message', () => {
  const spec = tinySpec({ steps: 12, replicas: 2, everySteps: 4, keep: 3 })
  let whole = ''
  beforeAll(async () => {
    whole = mkdtempSync(join(tmpdir(), 'scmoe-test-'))
    await trainToEnd(spec, whole)
  })
  afterAll(() => rmSync(whole, { recursive: true, force: true }))

  /** A copy of the job's folder, which has checkpoints of steps 12, 8 and 4. */
  function copied(): { output: string; fileOf: (step: number, name: string) => string } {
    const output = temporaryFolder()
    cpSync(whole, output, { recursive: true })
    const fileOf = (step: number, name: string) =>
      join(output, `checkpoints/step-${String(step).padStart(8, '0')}`, name)
    return { output, fileOf }
  }

  const files: [what: string, name: string][] = [
    ['the file with the dense tensors', 'shard-0-of-2.safetensors'],
    ["another rank's file", 'shard-1-of-2.safetensors'],
    ['the index', 'index.json'],
  ]
  const damages: [how: string, damage: (file: string) => void, reason: RegExp, ofIndex: RegExp][] = [
    ['cut short', file => truncateSync(file, statSync(file).size - 100), /it has \d+ bytes instead of \d+/, /JSON/],
    ['with one bit flipped', flipBit, /its checksum differs/, /(?:its checksum differs|JSON)/],
    ['missing', file => rmSync(file), /ENOENT: no such file or directory/, /ENOENT: no such file or directory/],
  ]
  const cases = files.flatMap(([what, name]) =>
    damages.map(([how, damage, reason, ofIndex]) => ({
      what: `${what} ${how}`,
      name,
      damage,
      reason: name === 'index.json' ? ofIndex : reason,
    })),
  )

  // Broken once by files whose size and checksum nobody looked at: a flipped bit was trained on; by
  // an index without a checksum of its own; and by ranks that did not ask each other: one continued
  // from step 12, alone.
  test.each(cases)('$what', async ({ name, damage, reason }) => {
    const { output, fileOf } = copied()
    damage(fileOf(12, name))
    const log = logOf(await trainToEnd(spec, output))
    expect(log).toMatch(
      new RegExp(`step-00000012 is not usable \\(${name}: [^"]*${reason.source}[^"]*step-00000008 is used instead`),
    )
    expect(log.match(/continuing after step 8"/g)).toHaveLength(2)
    expect(lossCurve(output)).toEqual(lossCurve(whole))
    expect(checkpointFolders(output)).toEqual([
      'step-00000004',
      'step-00000008',
      'step-00000012',
      expect.stringMatching(/^unusable-00000012-\d+$/),
    ])
  })

  test('two of them: the third is used, and each is named with its reason', async () => {
    const { output, fileOf } = copied()
    flipBit(fileOf(12, 'shard-1-of-2.safetensors'))
    rmSync(fileOf(8, 'index.json'))
    const log = logOf(await trainToEnd(spec, output))
    expect(log).toMatch(/step-00000012 is not usable \(shard-1-of-2.safetensors: its checksum.*step-00000004 is used/)
    expect(log).toMatch(/step-00000008 is not usable \(index.json: ENOENT.*step-00000004 is used/)
    expect(lossCurve(output)).toEqual(lossCurve(whole))
  })

  test('when none is left, training starts over and says so', async () => {
    const { output, fileOf } = copied()
    for (const step of [4, 8, 12]) flipBit(fileOf(step, 'shard-0-of-2.safetensors'))
    expect(logOf(await trainToEnd(spec, output))).toContain('training starts over')
    expect(lossCurve(output)).toEqual(lossCurve(whole))
  })

  test('one of another model is refused with the name of the field, and stays', async () => {
    const { output } = copied()
    const model = { blocks: 2, hiddenSize: 64, heads: 2, feedForwardSize: 64, experts: 4 }
    const ends = await (await TestGang.start(tinySpec({ steps: 20, replicas: 2, rest: { model } }), output)).ends()
    for (const { code, record } of ends) {
      expect(code).toBe(EXIT.badConfig.code)
      expect(record?.failure?.message).toContain('spec.model.hiddenSize 32, the job has 64')
    }
    expect(await wholeCheckpoints(output)).toEqual([12, 8, 4])
  })
})

describe('a full disk', () => {
  // The hook that removes the folder runs later, because it was there before.
  afterEach(unmountAll)

  /** A folder with a disk of its own. One checkpoint takes about 0.6 MB. */
  function disk(megabytes: number, context: TestContext): string {
    const output = temporaryFolder()
    mountDisk(output, megabytes, context)
    return output
  }

  // Both broken once by the temporary folder of a failed write that stayed: the next run had no
  // room either.
  test('too small for a second checkpoint: all ranks end with code 73 and name it, the first one stays', async context => {
    const output = disk(1, context)
    const spec = tinySpec({ steps: 40, replicas: 2 })
    const messagesOf = (ends: readonly RankEnd[]) => ends.map(({ record }) => record?.failure?.message).join('\n')
    for (const found of [
      new RegExp(`${output}/checkpoints/\\.tmp-.*-step-00000020 could not be written: ENOSPC: no space left on device`),
      // The second run is told before its first step.
      new RegExp(`No checkpoint can be written to ${output}/checkpoints: ENOSPC: 0.. MB are free, and a checkpoint of`),
    ]) {
      const ends = await (await TestGang.start(spec, output)).ends()
      expect(ends.map(({ code }) => code)).toEqual([EXIT.checkpoint.code, EXIT.checkpoint.code])
      expect(messagesOf(ends)).toMatch(found)
      expect(checkpointFolders(output)).toEqual(['step-00000010'])
      expect(await wholeCheckpoints(output)).toEqual([10])
      expect(logOf(ends)).not.toContain('not usable')
    }
    expect(lossCurve(output).size).toBeGreaterThanOrEqual(20)
  })

  test('filled by others while training: it ends with the path, and continues when there is room', async context => {
    const output = disk(4, context)
    const gang = await TestGang.start(
      tinySpec({ steps: 1_000_000, replicas: 2, everySteps: 5, keep: 1, warmupSteps: 1000 }),
      output,
    )
    await until(async () => (await listSteps(join(output, 'checkpoints'))).length > 0)
    const filler = join(output, 'filler')
    writeFileSync(filler, '')
    while (gang.children.every(({ exitCode }) => exitCode === null)) {
      const { bavail, bsize } = statfsSync(output)
      try {
        appendFileSync(filler, Buffer.alloc(Math.max(bavail * bsize, 1)))
      } catch (error) {
        expect(String(error)).toContain('ENOSPC')
      }
      await new Promise(resolve => setTimeout(resolve, 1))
    }
    const ends = await gang.ends()
    expect(ends[0]?.code).toBe(EXIT.checkpoint.code)
    const messages = ends.map(({ record }) => record?.failure?.message).join('\n')
    expect(messages).toMatch(/ENOSPC: no space left on device/)
    expect(messages).toMatch(new RegExp(`${output}/(checkpoints/\\.tmp-\\S+-step-\\d+|losses\\.jsonl)`))
    const [newest = 0] = await wholeCheckpoints(output)
    expect(newest).toBeGreaterThanOrEqual(5)
    rmSync(filler)
    const continued = tinySpec({ steps: newest + 5, replicas: 2, everySteps: 5, keep: 1, warmupSteps: 1000 })
    const log = logOf(await trainToEnd(continued, output))
    expect(log).toContain(`continuing after step ${newest}`)
    expect(log).not.toContain('not usable')
    expect(lossCurve(output).size).toBe(newest + 5)
  })
})

function flipBit(file: string): void {
  const bytes = readFileSync(file)
  const at = Math.floor(bytes.length * 0.7)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(file, bytes)
}

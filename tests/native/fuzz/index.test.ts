// Checkpoints that are damaged at random: their index, their files, or which files they have. Each
// is refused with a reason, by a resumed gang and by `scmoe eval`, or read as it was written. 2,000
// of them in `npm run soak`.

import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { demandModel, locate, readParameters } from '../../../worker/evaluate/checkpoint.ts'
import { modelOf, specOfIndex } from '../../../worker/evaluate/model.ts'
import { WorkerFailure } from '../../../worker/failure.ts'
import { tensors } from '../../../worker/model/tensors.ts'
import { model, places, restoreAll, saveAll, stateOf, valuesOf } from '../../support/files/checkpoints.ts'
import { Draw, printedSeed, withChangedJson, withDamagedBytes } from '../../support/files/mutate.ts'

const COUNT = process.env['SCMOE_SOAK'] ? 2000 : 60
const STEP = 6
const CONFIG = model(3, 3, { experts: 3, hiddenSize: 8, feedForwardSize: 8, vocabularySize: 16 })
const NAME = `step-0000000${STEP}`

let folder: string
/** Other checkpoints, whose files are put in place of right ones. */
const others: string[] = []
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'scmoe-fuzz-'))
  const write = async (name: string, config = CONFIG, change: object = {}, step = STEP) => {
    const output = join(folder, name)
    mkdirSync(join(output, 'checkpoints'), { recursive: true })
    await saveAll(places(output, config, change), step)
    return join(output, `checkpoints/step-0000000${step}`)
  }
  await write('right')
  others.push(
    await write('step', CONFIG, {}, STEP - 1),
    await write('attempt', CONFIG, { attempt: 2 }),
    await write(
      'model',
      model(3, 3, { experts: 3, hiddenSize: 8, feedForwardSize: 8, vocabularySize: 16, kind: 'Top2' }),
    ),
    await write('ranks', model(1, 1, { experts: 3, hiddenSize: 8, feedForwardSize: 8, vocabularySize: 16 })),
  )
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const sumOf = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const FILES = ['index.json', 'shard-0-of-3.safetensors', 'shard-1-of-3.safetensors', 'shard-2-of-3.safetensors']
type Files = { name: string; bytes: number; sha256: string }[]

/** Damages the checkpoint in `at`; returns what it did. */
function damage(at: string, draw: Draw): string {
  const index = join(at, 'index.json')
  const { content } = JSON.parse(readFileSync(index, 'utf8')) as { content: { files: Files } }
  const seal = (changed: unknown) =>
    writeFileSync(index, JSON.stringify({ content: changed, sha256: sumOf(JSON.stringify(changed)) }, null, 1))
  const how = draw.next()
  if (how < 0.15) {
    const name = draw.of(FILES)
    writeFileSync(join(at, name), withDamagedBytes(readFileSync(join(at, name)), draw))
    return `bytes of ${name}`
  }
  if (how < 0.25) {
    const json = withChangedJson(JSON.parse(readFileSync(index, 'utf8')) as object, draw)
    writeFileSync(index, JSON.stringify(json, null, 1))
    return 'the structure of the index'
  }
  if (how < 0.75) {
    seal(withChangedJson(content, draw))
    return 'the content of the index, with its sum'
  }
  // Files change places, or come from another checkpoint; the index gets their sizes and sums.
  const name = draw.of(FILES.slice(1))
  const source = draw.next() < 0.5 ? at : draw.of(others)
  const from = source === at || !source.includes('ranks') ? draw.of(FILES.slice(1)) : 'shard-0-of-1.safetensors'
  const [own, other] = [readFileSync(join(at, name)), readFileSync(join(source, from))]
  writeFileSync(join(at, name), other)
  if (source === at) writeFileSync(join(at, from), own)
  const files = content.files.map(file => {
    const bytes = readFileSync(join(at, file.name))
    return { ...file, bytes: bytes.length, sha256: sumOf(bytes) }
  })
  seal({ ...content, files })
  return `${from} of ${source === at ? 'the same' : 'another'} checkpoint as ${name}, with its sum`
}

/** Whether a gang on this many ranks reads the step that was damaged. Throws if it reads others. */
async function isResumed(output: string, ranks: number): Promise<boolean> {
  const config = {
    ...CONFIG,
    ...model(ranks, ranks, { experts: 3, hiddenSize: 8, feedForwardSize: 8, vocabularySize: 16 }),
  }
  const all = places(output, config)
  const { ranks: found, warnings } = await restoreAll(all).catch((error: unknown) => {
    // An index of another model ends the job for good, with the field that differs.
    if (error instanceof WorkerFailure && error.reason === 'badConfig') return { ranks: [], warnings: [error.message] }
    throw error
  })
  for (const text of warnings) expect(text.length, text).toBeLessThan(900)
  const steps = new Set(found.map(({ restored }) => restored?.index.step))
  if (!steps.has(STEP)) {
    expect([...steps].filter(step => step !== undefined)).toEqual([])
    expect(warnings.length).toBeGreaterThan(0)
    return false
  }
  for (const [rank, { held }] of found.entries()) expect(valuesOf(held)).toEqual(valuesOf(stateOf(config, rank, STEP)))
  return true
}

/** Whether `scmoe eval` reads the parameters. Throws if it reads others. */
async function isEvaluated(path: string): Promise<boolean> {
  const right = stateOf(model(1, 1, { experts: 3, hiddenSize: 8, feedForwardSize: 8, vocabularySize: 16 }), 0, STEP)
  try {
    const source = await locate(path)
    if (source.kind === 'weights') throw new Error('a checkpoint was taken for weights')
    const found = modelOf(specOfIndex(source.index), 1)
    demandModel(source, found)
    const memory = new Map(
      tensors(found).map(({ name, shape }) => [
        name,
        new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(Number.NaN),
      ]),
    )
    await readParameters(source, found, name => memory.get(name) ?? new Float32Array())
    expect(source.index.step).toBe(STEP)
    for (const { name, tensor, data } of right) if (name === tensor.name) expect(memory.get(name), name).toEqual(data)
    for (const field of ['kind', 'topK', 'heads', 'shortcutPosition', 'coefficientGate'] as const)
      expect(found[field], field).toBe(CONFIG[field])
    return true
  } catch (error) {
    if (!(error instanceof WorkerFailure) && !(error instanceof Error && error.message.startsWith('spec.'))) throw error
    expect(error.message.length, error.message).toBeLessThan(2000)
    return false
  }
}

test('a damaged checkpoint is refused with a reason, or read as it was written', async () => {
  const seed = printedSeed()
  const counts = { resumed: 0, evaluated: 0, refused: 0 }
  for (let i = 0; i < COUNT; i++) {
    const draw = new Draw(seed + i)
    const output = join(folder, 'damaged')
    rmSync(output, { recursive: true, force: true })
    cpSync(join(folder, 'right'), output, { recursive: true })
    const what = damage(join(output, 'checkpoints', NAME), draw)
    const context = `SCMOE_TEST_SEED=${seed + i}: ${what}`
    try {
      const evaluated = await isEvaluated(join(output, 'checkpoints', NAME))
      const resumed = await isResumed(output, draw.of([1, 3]))
      counts.evaluated += Number(evaluated)
      counts.resumed += Number(resumed)
      counts.refused += Number(!resumed && !evaluated)
    } catch (error) {
      throw new Error(`${context}: ${String(error)}`, { cause: error })
    }
  }
  console.log(
    `${COUNT} checkpoints: ${counts.refused} refused, ${counts.resumed} resumed and ${counts.evaluated} evaluated as they were written`,
  )
  expect(counts.refused).toBeGreaterThan(COUNT / 2)
})

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { EXIT } from '../../../crds/contract.ts'
import {
  checkpointFolders,
  lossCurve,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  untilStep,
} from '../../support/worker-gang.ts'

const leg = (steps: number, replicas: number, rest: object = {}) =>
  tinySpec({ steps, replicas, everySteps: 1_000_000, warmupSteps: 60, rest })

// Broken once by a rank that stopped without telling the others, for which both ended with
// peerLost; and by the data read from the start again.
test('SIGTERM to one rank: all save the same step, end with 143, and continue bit for bit', async () => {
  const [whole, broken] = [temporaryFolder(), temporaryFolder()]
  const gang = await TestGang.start(leg(1_000_000, 2), broken)
  await untilStep(gang, 3)
  gang.kill(1, 'SIGTERM')
  const ends = await gang.ends()
  expect(ends.map(({ code }) => code)).toEqual([EXIT.terminated.code, EXIT.terminated.code])
  const stopped = ends[0]?.record?.progress?.step ?? 0
  expect(stopped).toBeGreaterThanOrEqual(3)
  expect(ends[1]?.record?.progress?.step).toBe(stopped)
  expect(checkpointFolders(broken)).toEqual([`step-${String(stopped).padStart(8, '0')}`])
  await trainToEnd(leg(stopped + 20, 2), broken)
  await trainToEnd(leg(stopped + 20, 2), whole)
  expect(lossCurve(broken)).toEqual(lossCurve(whole))
})

// Broken once by second moments that were not read, by every rank taking the first experts of a
// file, and by the data read from the start.
test('resumed with 1, 2, 4 and 2 ranks, and with experts replicated, training follows one curve', async () => {
  const [straight, moved] = [temporaryFolder(), temporaryFolder()]
  await trainToEnd(leg(50, 2), straight)
  await trainToEnd(leg(10, 1), moved)
  await trainToEnd(leg(20, 2), moved)
  await trainToEnd(leg(30, 4), moved)
  await trainToEnd(leg(40, 4, { parallelism: { expertParallelSize: 2 } }), moved)
  await trainToEnd(leg(50, 2), moved)
  const [expected, actual] = [lossCurve(straight), lossCurve(moved)]
  expect([...actual.keys()]).toEqual([...expected.keys()])
  // Sums over ranks are in another order. After 50 steps the curves differ by 1e-6.
  for (const [step, loss] of actual) expect(Math.abs(loss - (expected.get(step) ?? 0))).toBeLessThan(1e-4)
  expect(actual.get(50)).toBeLessThan(0.75 * (actual.get(1) ?? 0))
})

interface Line {
  step: number
  learningRate?: number
}
const ratesIn = (output: string) =>
  readFileSync(join(output, 'losses.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line): Line => JSON.parse(line))
    .flatMap(({ step, learningRate }) => (learningRate === undefined ? [] : [{ step, learningRate }]))

// Seen failing with the schedule of the new number of steps alone: after 0.3e-3 in step 30 the
// learning rate was 1.6e-3 in step 31.
test('more steps than before: the learning rate goes on from the value reached, and the job is kept', async () => {
  const output = temporaryFolder()
  const job = (steps: number, rest: object = {}) => tinySpec({ steps, replicas: 1, everySteps: 1000, rest })
  await trainToEnd(job(30), output)
  await trainToEnd(job(60), output)
  const rates = ratesIn(output)
  expect(rates.map(({ step }) => step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
  expect(rates[4]?.learningRate).toBeCloseTo(3e-3, 12)
  for (const { step, learningRate } of rates.slice(29))
    expect([step, learningRate]).toEqual([step, expect.closeTo(3e-4, 12)])
  const kept: unknown = JSON.parse(readFileSync(join(output, 'job.json'), 'utf8'))
  expect(kept).toMatchObject({ kind: 'ScMoEJob', metadata: { name: 'test' }, spec: { training: { steps: 60 } } })
  const [end] = await trainToEnd(job(70, { data: { builtin: 'sotu' } }), output)
  expect(end?.log).toContain('the data changes here: until now it was builtin moby-dick')
})

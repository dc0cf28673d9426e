// Every kind of model trains, saves, resumes on another number of ranks, and is evaluated.

import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { evaluate } from '../../../worker/evaluate/run.ts'
import { lossCurve, temporaryFolder, tinySpec, trainToEnd, wholeCheckpoints } from '../../support/worker-gang.ts'

const KINDS = ['Dense', 'Top1', 'Top2', 'SharedExpert', 'DGMoE', 'ScMoE'] as const
type Kind = (typeof KINDS)[number]

/** Two steps for each of the numbers of ranks that a job had before. No token is dropped. */
const job = (kind: Kind, steps: number, replicas: number) =>
  tinySpec({
    steps,
    replicas,
    rest: {
      model: { kind, blocks: 2, hiddenSize: 16, heads: 2, feedForwardSize: 16, experts: 6, capacityFactor: 'none' },
      training: {
        steps,
        globalBatchSequences: 6,
        sequenceLength: 16,
        optimizer: { learningRate: '3e-3', warmupSteps: 1000 },
        evaluation: { everySteps: 1000, batches: 1 },
      },
    },
  })

/**
 * Trains two steps on each number of ranks, one after another, and compares the losses with those
 * of one rank, and the last checkpoint with what the workers found.
 */
async function trainOn(kind: Kind, ranks: readonly number[]): Promise<void> {
  const [moved, alone] = [temporaryFolder(), temporaryFolder()]
  const steps = 2 * ranks.length
  for (const [i, replicas] of ranks.entries()) {
    const [end] = await trainToEnd(job(kind, 2 * i + 2, replicas), moved)
    if (i > 0) expect(end?.log).toContain(`continuing after step ${2 * i}`)
    expect((await wholeCheckpoints(moved))[0]).toBe(2 * i + 2)
  }
  await trainToEnd(job(kind, steps, 1), alone)
  const [expected, actual] = [lossCurve(alone), lossCurve(moved)]
  expect([...actual.keys()]).toEqual(Array.from({ length: steps }, (_, i) => i + 1))
  // The balance loss is a mean over the ranks, and sums over ranks are in another order.
  for (const [step, loss] of actual)
    expect(Math.abs(loss - (expected.get(step) ?? 0)), `step ${step}`).toBeLessThan(1e-3)
  const tokens = join(moved, 'tokens')
  writeFileSync(tokens, 'Call me Ishmael. Some years ago, never mind how long.')
  const [there, here] = [moved, alone].map(checkpoint => evaluate({ checkpoint, tokens, threads: 1 }))
  expect((await there)?.step).toBe(steps)
  expect(Math.abs(((await there)?.crossEntropy ?? 0) - ((await here)?.crossEntropy ?? 9))).toBeLessThan(1e-3)
}

// Seen failing for Dense with a file wanted of every rank: all but rank 0 have nothing to write.
describe('trains, saves, resumes and is evaluated', () => {
  test.each(KINDS)('%s, on two ranks, then three, then one', kind => trainOn(kind, [2, 3, 1]))

  const others = [1, 2, 3].flatMap(from => [1, 2, 3].map(to => [from, to]))
  const all = KINDS.flatMap(kind => others.map(ranks => ({ kind, ranks })))
  if (process.env['SCMOE_SOAK']) test.each(all)('$kind, on $ranks ranks', ({ kind, ranks }) => trainOn(kind, ranks))
})

// Seen failing with files of all ranks in the index.
test('a model without experts has one file, whatever the number of ranks', async () => {
  const output = temporaryFolder()
  await trainToEnd(job('Dense', 1, 3), output)
  expect(readdirSync(join(output, 'checkpoints/step-00000001')).toSorted()).toEqual([
    'index.json',
    'shard-0-of-1.safetensors',
  ])
})

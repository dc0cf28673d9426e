// scmoe simulate with what it measures itself: one rank's compute ops, in processes of this machine.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { z } from 'zod'
import { simulateCommand } from '../../cli/simulate.ts'
import { API_VERSION, KIND } from '../../crds/contract.ts'

const Predicted = z.array(z.object({ ranks: z.number(), expertParallelSize: z.number(), stepMilliseconds: z.number() }))
const folder = mkdtempSync(join(tmpdir(), 'scmoe-simulate-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** So fast that all time is compute. */
const NETWORK = { bandwidth: 1e9, latency: 0, peer: 0, contention: 0, threads: 1 }

async function simulated(hiddenSize: number) {
  const file = join(folder, 'job.json')
  const model = { blocks: 2, hiddenSize, heads: 2, feedForwardSize: 2 * hiddenSize, experts: 4 }
  const training = { steps: 1, sequenceLength: 64, globalBatchSequences: 8, microBatches: 2 }
  const spec = { model, training, workers: { replicas: 2 } }
  writeFileSync(file, JSON.stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'job' }, spec }))
  return Predicted.parse(JSON.parse(await simulateCommand(file, { ...NETWORK, ranks: [2, 8], json: true })))
}

// Seen failing with 10 microseconds for every op, and with each expert on a rank of its own.
it('predicts worlds from compute it measures: more for a wider model, experts over as many ranks as divide both', async () => {
  const [small, large] = [await simulated(32), await simulated(256)]
  expect(small.map(({ ranks, expertParallelSize }) => [ranks, expertParallelSize])).toEqual([
    [2, 2],
    [8, 4],
  ])
  for (const [world, { stepMilliseconds }] of large.entries())
    expect(stepMilliseconds).toBeGreaterThan(2 * (small[world]?.stepMilliseconds ?? Number.POSITIVE_INFINITY))
})

// Tests of the command `scmoe simulate`: the jobs that this machine can measure, and predictions
// from the results of a run. The formulas are tested in tests/unit/schedule/simulate.test.ts, the
// measurements in tests/native/cli/simulate.test.ts.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { JobFileError, readJob } from '../../../cli/job-file.ts'
import { type SimulateOptions, simulateCommand } from '../../../cli/simulate/simulate.ts'
import { API_VERSION, KIND } from '../../../crds/contract.ts'
import { worldSizeOf } from '../../../crds/ranks.ts'
import { emitTrain } from '../../../worker/emit/emit.ts'
import { modelConfig } from '../../../worker/model/config.ts'

const OPTIONS: SimulateOptions = { bandwidth: 100, latency: 10, peer: 0, contention: 0, ranks: [4] }
const Predicted = z.array(z.object({ ranks: z.number(), communicationMilliseconds: z.number() }))

const folder = mkdtempSync(join(tmpdir(), 'scmoe-simulate-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Writes a file with one job on GPUs. */
function jobFile(precision: string): string {
  const file = join(folder, `${precision}.json`)
  const model = { blocks: 2, hiddenSize: 64, heads: 2, feedForwardSize: 64 }
  const training = { steps: 1, sequenceLength: 64, globalBatchSequences: 8, precision }
  const spec = { model, training, workers: { gpusPerWorker: 2 } }
  writeFileSync(file, JSON.stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'job' }, spec }))
  return file
}

/** The output folder of a run of that job in which every op took 10 microseconds. */
function resultsOf(file: string): string {
  const { spec } = readJob(file)
  const labels = emitTrain(modelConfig(spec, worldSizeOf(spec)), 0).ops.map(({ label }) => label)
  const measured = { labels, times: [labels.map(() => 10)], contention: 0, latency: 0 }
  writeFileSync(join(folder, 'plan-times.json'), JSON.stringify(measured))
  writeFileSync(join(folder, 'summary.json'), JSON.stringify({}))
  return folder
}

const predicted = async (file: string) =>
  Predicted.parse(JSON.parse(await simulateCommand(file, { ...OPTIONS, json: true, results: resultsOf(file) })))

describe('scmoe simulate of a job in bfloat16', () => {
  // Seen failing without the check: --validate with --results then trained in float32 silently.
  it.each([
    ['', {}],
    [' with --validate', { validate: true }],
    [' with --validate, whatever --results are given', { validate: true, results: folder }],
  ])('is refused%s, as it would be measured by CPUs: field, value, and what to do', async (_, options) => {
    const refused = simulateCommand(jobFile('bfloat16'), { ...OPTIONS, ...options })
    await expect(refused).rejects.toThrow(
      new JobFileError(
        'spec.training.precision: training.precision is bfloat16, but the ranks here compute on CPUs, which know float32 alone: give --results of a run of the job, without --validate, or use precision float32',
      ),
    )
  })

  it('is predicted from --results of a run, with half the bytes of float32 in each all-to-all', async () => {
    const [half, single] = [await predicted(jobFile('bfloat16')), await predicted(jobFile('float32'))]
    const times = [half, single].map(([each]) => each?.communicationMilliseconds ?? Number.NaN)
    expect(half.map(({ ranks }) => ranks)).toEqual([4])
    expect((times[0] ?? 0) / (times[1] ?? 0)).toBeGreaterThan(0.5)
    expect((times[0] ?? 0) / (times[1] ?? 0)).toBeLessThan(0.6)
  })
})

describe('scmoe simulate of a world that the job cannot have', () => {
  // Seen failing when modelConfig refused it, whose text named neither a field nor a remedy.
  it('is refused in the words of the rules', async () => {
    const file = join(folder, 'groups.json')
    const spec = { training: { steps: 1 }, parallelism: { expertParallelSize: 2 }, workers: { replicas: 2 } }
    writeFileSync(file, JSON.stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'job' }, spec }))
    const refused = simulateCommand(file, { ...OPTIONS, ranks: [3] })
    await expect(refused).rejects.toThrow(
      new JobFileError(
        'spec.parallelism.expertParallelSize: parallelism.expertParallelSize is 2, which does not divide the 3 ranks (workers.replicas, times workers.gpusPerWorker with GPUs): use a size that does, or leave it out for one group of all ranks',
      ),
    )
  })
})

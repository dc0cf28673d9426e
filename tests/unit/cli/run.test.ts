// Tests of the words and figures of `scmoe run`, from plain data. tests/native/worker/run.test.ts
// runs jobs.

import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { nearWords } from '../../../cli/nearest.ts'
import { quantity } from '../../../cli/plan/fits.ts'
import { exitCode, outcomeOf } from '../../../cli/run/conclusion.ts'
import { demandOwnPlace } from '../../../cli/run/earlier-job.ts'
import type { RankEnd } from '../../../cli/run/gang.ts'
import { progressLine } from '../../../cli/run/live-view.ts'
import { bandwidth, bytes, flops, time } from '../../../cli/sentence.ts'
import { API_VERSION, JOB_COPY, KIND, type Progress } from '../../../crds/contract.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { keepJob } from '../../../worker/report/job-copy.ts'

const PROGRESS: Progress = {
  jobUid: 'a',
  attempt: 0,
  rank: 0,
  step: 130,
  totalSteps: 200,
  lossMilli: 2100,
  observedTime: '2026-01-01T00:00:00.000Z',
}

describe('the progress of a run', () => {
  // Seen failing: the evaluation of step 100 stood beside the loss of step 130 without its step.
  it('names the step of an evaluation that was before this one', () => {
    expect(progressLine({ ...PROGRESS, evaluationLossMilli: 2345, evaluationStep: 100 })).toBe(
      'step 130/200  loss 2.100  evaluation 2.345 at step 100',
    )
    expect(progressLine({ ...PROGRESS, evaluationLossMilli: 2345, evaluationStep: 130 })).toMatch(/ evaluation 2.345$/)
    expect(progressLine({ ...PROGRESS, evaluationLossMilli: 2345 })).toMatch(/ evaluation 2.345 at step \?$/)
  })

  it('says the time left in the unit in which it is read', () => {
    expect(progressLine({ ...PROGRESS, estimatedRemainingSeconds: 7800 })).toMatch(/ {2}2 h 10 min left$/)
  })
})

describe('the end of a run', () => {
  const end = (code: number): RankEnd => ({ rank: 0, code, failure: undefined, progress: undefined })

  it.each([
    ['done', 0, undefined, 0],
    ['done', 0, { signal: 'SIGINT', again: false }, 0],
    ['stopped', 143, { signal: 'SIGINT', again: false }, 130],
    ['stopped', 143, { signal: 'SIGTERM', again: false }, 143],
    ['stopped', 143, { signal: 'SIGHUP', again: false }, 129],
    ['stopped', 143, undefined, 143],
    ['killed', 137, { signal: 'SIGINT', again: true }, 130],
    ['failed', 137, undefined, 137],
    ['failed', 73, { signal: 'SIGINT', again: false }, 73],
  ] as const)('is %s when the ranks end with %i after %j: exit code %i', (outcome, code, request, expected) => {
    const ended = { ends: [end(code)], request }
    expect([outcomeOf(ended), exitCode(ended)]).toEqual([outcome, expected])
  })
})

describe('the copy of the job in the output folder', () => {
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-copy-'))
  const place = join(folder, JOB_COPY)
  const linked = join(folder, 'linked')
  symlinkSync(folder, linked)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  // Seen failing without the comparison, and with a comparison of the paths as text.
  it('does not replace the file that the user wrote', () => {
    const job = { apiVersion: API_VERSION, kind: KIND, metadata: { name: 'a' }, spec: { training: { steps: 1 } } }
    for (const text of [JSON.stringify(job), '# a comment\nkind: ScMoEJob\n']) {
      writeFileSync(place, text)
      for (const file of [place, relative(process.cwd(), place), join(linked, JOB_COPY)])
        expect(() => demandOwnPlace(file, folder)).toThrow(
          `${place} would be replaced by a copy of the job: give another folder with --output`,
        )
    }
    writeFileSync(join(folder, 'mine.yaml'), JSON.stringify(job))
    for (const file of ['-', join(folder, 'mine.yaml'), join(tmpdir(), JOB_COPY)])
      expect(() => demandOwnPlace(file, folder)).not.toThrow()
  })

  // Seen failing with every file at that path refused.
  it('may be run again', () => {
    keepJob(folder, { jobName: 'a', spec: ScMoEJobSpec.parse({ training: { steps: 1 } }) })
    expect(() => demandOwnPlace(place, folder)).not.toThrow()
  })
})

describe('figures', () => {
  it('have the unit in which they are easily read', () => {
    expect([0, 1, 1023, 1024, 895 * 2 ** 30].map(bytes)).toEqual([
      '0 bytes',
      '1 byte',
      '1023 bytes',
      '1.0 KiB',
      '895.0 GiB',
    ])
    expect([3, 80_500, 449_874_600, 3.6e9, 36e9].map(time)).toEqual([
      '3.0 us',
      '80.5 ms',
      '449.9 s',
      '60.0 min',
      '10.0 h',
    ])
    expect([50, 26_800].map(flops)).toEqual(['50 Gflop/s', '26.8 Tflop/s'])
    expect([25, 1000, 315_000].map(bandwidth)).toEqual(['25 MB/s', '1000 MB/s', '315 GB/s'])
  })

  it('of memory are read as Kubernetes reads them', () => {
    expect(['64Mi', '1.5Gi', '2G', '1e9', '128974848000m', 'lots', undefined].map(quantity)).toEqual([
      64 * 2 ** 20,
      1.5 * 2 ** 30,
      2e9,
      1e9,
      128_974_848,
      undefined,
      undefined,
    ])
  })
})

describe('words that are nearly right', () => {
  it('are found with swapped, missing and capital letters, and others are not', () => {
    const fields = ['hiddenSize', 'heads', 'seed', 'topK']
    expect(nearWords('hidenSize', fields)).toEqual(['hiddenSize'])
    expect(nearWords('haeds', fields)).toEqual(['heads'])
    expect(nearWords('TOPK', fields)).toEqual(['topK'])
    expect(nearWords('lr', fields)).toEqual([])
    expect(nearWords('learningRate', fields)).toEqual([])
  })
})

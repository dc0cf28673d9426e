// Tests of a worker's reports: its HTTP server, rates, termination message and failures.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ENV, EXIT, Progress, TerminationRecord } from '../../../crds/contract.ts'
import { readConfig } from '../../../worker/config.ts'
import { EngineError } from '../../../worker/engine-error.ts'
import { asFailure, WorkerFailure } from '../../../worker/failure.ts'
import { median } from '../../../worker/median.ts'
import { WorkerMetrics } from '../../../worker/report/metrics.ts'
import { RunRecord } from '../../../worker/report/record.ts'
import { type Reported, serveReport } from '../../../worker/report/server.ts'
import { writeTermination } from '../../../worker/report/termination.ts'

let folder: string
const servers: Server[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'scmoe-report-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
  for (const server of servers.splice(0)) server.close()
})

function recordOf(rank: number, worldSize = 2): RunRecord {
  const spec = {
    training: { steps: 100, globalBatchSequences: 4, sequenceLength: 50 },
    workers: { replicas: worldSize },
  }
  return new RunRecord(
    readConfig({
      [ENV.jobName]: 'job',
      [ENV.jobUid]: 'uid',
      [ENV.rank]: String(rank),
      [ENV.worldSize]: String(worldSize),
      [ENV.rendezvous]: 'localhost:1',
      [ENV.secret]: 'a-random-text-of-32-characters...',
      [ENV.spec]: JSON.stringify(spec),
    }),
  )
}

async function serve(change: Partial<Reported> = {}): Promise<(path: string) => Promise<Response>> {
  const record = recordOf(change.rank ?? 0)
  const reported: Reported = {
    record,
    metrics: new WorkerMetrics(record),
    rank: 0,
    ready: false,
    trace: undefined,
    ...change,
  }
  const server = await serveReport(reported, { port: 0, host: '127.0.0.1' })
  servers.push(server)
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return path => fetch(`http://127.0.0.1:${port}${path}`)
}

test('rank 0 serves progress as the contract says; the other ranks refer to rank 0', async () => {
  const zero = await serve()
  expect(Progress.parse(await (await zero('/progress')).json())).toMatchObject({ rank: 0, step: 0, totalSteps: 100 })
  const one = await serve({ rank: 1 })
  const answer = await one('/progress')
  expect(answer.status).toBe(404)
  expect(await answer.text()).toContain('rank 0 serves')
})

test('every rank serves the trace of its own step, once there is one', async () => {
  const none = await (await serve({ rank: 1 }))('/trace')
  expect([none.status, await none.text()]).toEqual([404, 'no step has been run yet\n'])
  const made = await serve({ rank: 1, trace: () => '{"traceEvents":[]}' })
  expect(await (await made('/trace')).json()).toEqual({ traceEvents: [] })
})

test('a worker is alive from the start, and ready after the rendezvous', async () => {
  const waiting = await serve()
  expect((await waiting('/healthz')).status).toBe(200)
  expect((await waiting('/readyz')).status).toBe(503)
  expect((await (await serve({ ready: true }))('/readyz')).status).toBe(200)
})

test('unknown paths are refused, and so are methods other than GET', async () => {
  const get = await serve()
  expect((await get('/')).status).toBe(404)
  expect((await get('/trace')).status).toBe(404)
  const { url } = await get('/healthz')
  expect((await fetch(url, { method: 'POST' })).status).toBe(405)
})

test('a taken port is named', async () => {
  const get = await serve()
  const port = Number(new URL((await get('/healthz')).url).port)
  const record = recordOf(0)
  const reported = { record, metrics: new WorkerMetrics(record), rank: 0, ready: false, trace: undefined }
  await expect(serveReport(reported, { port, host: '127.0.0.1' })).rejects.toMatchObject({
    reason: 'portInUse',
    message: expect.stringContaining(String(port)),
  })
})

test('rates are medians and sums over the last 20 steps', () => {
  const record = recordOf(0)
  expect(record.rates()).toBeUndefined()
  for (let step = 1; step <= 25; step++) {
    const slow = step <= 5 || step % 5 === 0
    record.stepDone(step, {
      loss: 5 - step / 10,
      milliseconds: slow ? 1000 : 100,
      communication: 40,
      waited: 10,
      shareOfMoe: slow ? 0.5 : 0.25,
    })
  }
  // A step takes 100 ms for 4 sequences of 50 tokens.
  expect(record.progress()).toMatchObject({
    step: 25,
    lossMilli: 2500,
    initialLossMilli: 4900,
    stepTimeMilliseconds: 100,
    tokensPerSecond: 2000,
    communicationMilliseconds: 40,
    overlapPercent: 75,
    communicationShareOfMoePercent: 30,
    estimatedRemainingSeconds: 8,
  })
})

test('a rank alone reports no communication', () => {
  const record = recordOf(0, 1)
  record.stepDone(1, { loss: 1, milliseconds: 10, communication: 0.1, waited: 0.1, shareOfMoe: 0.5 })
  expect(record.progress()).not.toHaveProperty('overlapPercent')
  expect(record.progress()).toHaveProperty('tokensPerSecond')
})

test('a resumed run keeps the losses of the beginning, and says at which step it last evaluated', () => {
  const record = recordOf(0)
  const last = { loss: 2.5, evaluationLoss: 2.7, evaluationStep: 50 }
  record.resumeAt(50, { first: { loss: 5.5, evaluationLoss: 5.6 }, last }, '2026-01-01T00:00:00.000Z')
  record.stepDone(51, { loss: 2, milliseconds: 1, communication: 0, waited: 0, shareOfMoe: 0 })
  expect(record.progress()).toMatchObject({ step: 51, evaluationLossMilli: 2700, evaluationStep: 50 })
  record.evaluated(51, 3)
  expect(record.progress()).toMatchObject({
    evaluationStep: 51,
    initialLossMilli: 5500,
    initialEvaluationLossMilli: 5600,
    evaluationLossMilli: 3000,
    lastCheckpointStep: 50,
    lastCheckpointTime: '2026-01-01T00:00:00.000Z',
  })
})

test('the termination message is valid and fits, whatever the failure says', () => {
  const path = join(folder, 'termination')
  const record = recordOf(0)
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 5000 }), fc.string({ maxLength: 300 }), (message, op) => {
      writeTermination(path, {
        rank: 1,
        progress: record.progress(),
        failure: new WorkerFailure('peerLost', message, { op, peer: 0 }),
      })
      const bytes = readFileSync(path)
      expect(bytes.length).toBeLessThanOrEqual(4096)
      expect(TerminationRecord.parse(JSON.parse(bytes.toString())).failure).toMatchObject({ rank: 1, peer: 0 })
    }),
  )
})

test('a termination message that cannot be written is no error', () => {
  expect(() => writeTermination('/no/such/folder/file', { rank: 0 })).not.toThrow()
})

test('every error ends in an exit code of the contract', () => {
  const cases: [unknown, string][] = [
    [new EngineError('PEER_LOST', 'gone', { peer: 3, op: 'pair0.forward.dispatch' }), 'peerLost'],
    [new EngineError('PEER_TIMEOUT', 'silent'), 'peerLost'],
    [new EngineError('OUT_OF_MEMORY', 'big'), 'outOfMemory'],
    [new EngineError('ADDON_MISSING', 'where'), 'badConfig'],
    [new TypeError('x is not a function'), 'internal'],
    ['a string', 'internal'],
  ]
  for (const [error, reason] of cases) {
    const failure = asFailure(error)
    expect(failure.reason).toBe(reason)
    expect(EXIT[failure.reason].code).toBeGreaterThan(0)
  }
  expect(asFailure(cases[0]?.[0])).toMatchObject({ peer: 3, op: 'pair0.forward.dispatch' })
})

test('the median is the middle value, or the mean of the two middle values', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 2, 3])).toBe(2.5)
})

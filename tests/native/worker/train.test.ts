import { expect, test } from 'vitest'
import { EXIT, Progress } from '../../../crds/contract.ts'
import {
  lossCurve,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  until,
  untilStep,
} from '../../support/worker-gang.ts'

test('two ranks train: the loss falls, on held-out text too', async () => {
  const output = temporaryFolder()
  const ends = await trainToEnd(tinySpec({ steps: 60, replicas: 2 }), output)
  const curve = lossCurve(output)
  expect(curve.size).toBe(60)
  expect(curve.get(1)).toBeCloseTo(Math.log(256), 0)
  expect(curve.get(60)).toBeLessThan(0.75 * (curve.get(1) ?? 0))
  const progress = ends[0]?.record?.progress
  expect(progress).toMatchObject({ step: 60, totalSteps: 60, lastCheckpointStep: 60 })
  expect(progress?.evaluationLossMilli).toBeLessThan(0.75 * (progress?.initialEvaluationLossMilli ?? 0))
  expect(ends[0]?.record?.failure).toBeUndefined()
})

test('every strategy and slot gives the same losses, bit for bit', async () => {
  const overlaps = [
    { strategy: 'Sequential' },
    { strategy: 'Auto' },
    ...[1, 2, 3, 4].map(slot => ({ strategy: 'Shortcut', slot })),
  ]
  const curves: Map<number, number>[] = []
  for (const overlap of overlaps) {
    const output = temporaryFolder()
    await trainToEnd(tinySpec({ steps: 12, replicas: 2, rest: { overlap } }), output)
    curves.push(lossCurve(output))
  }
  for (const curve of curves.slice(1)) expect(curve).toEqual(curves[0])
})

test('one, two and four ranks follow one loss curve', async () => {
  const curves: number[][] = []
  for (const replicas of [1, 2, 4]) {
    const output = temporaryFolder()
    await trainToEnd(tinySpec({ steps: 30, replicas }), output)
    curves.push([...lossCurve(output).values()])
  }
  // Sums over ranks are in another order. After 30 steps the curves differ by 1e-6.
  for (const curve of curves.slice(1)) {
    expect(Math.max(...curve.map((loss, i) => Math.abs(loss - (curves[0]?.[i] ?? 0))))).toBeLessThan(1e-4)
  }
})

test('a running rank 0 serves progress, metrics, health and a trace', async () => {
  const gang = await TestGang.start(tinySpec({ steps: 100_000, replicas: 2 }), temporaryFolder())
  await until(() =>
    gang.get('/healthz').then(
      answer => answer.ok,
      () => false,
    ),
  )
  await untilStep(gang, 12)
  const progress = Progress.parse(await (await gang.get('/progress')).json())
  expect(progress).toMatchObject({ jobUid: 'uid-of-test', attempt: 0, rank: 0, totalSteps: 100_000 })
  expect(progress.tokensPerSecond).toBeGreaterThan(0)
  expect(progress.estimatedRemainingSeconds).toBeGreaterThan(0)
  expect(progress.schedule).toMatch(/sequential|shortcut K=/)
  expect((await gang.get('/readyz')).status).toBe(200)
  const metrics = await (await gang.get('/metrics')).text()
  expect(Number(/^scmoe_step (\d+)$/m.exec(metrics)?.[1])).toBeGreaterThanOrEqual(12)
  expect(metrics).toMatch(/^scmoe_step_duration_seconds_bucket\{le="0.01"\} \d+$/m)
  const { traceEvents } = JSON.parse(await (await gang.get('/trace')).text())
  const labels = traceEvents.map(({ name }: { name: string }) => name)
  expect(labels).toContain('unit0.forward.dispatch')
  expect((await gang.get('/elsewhere')).status).toBe(404)
  gang.kill(0, 'SIGTERM')
  await gang.ends()
})

test('training that diverges ends with a failure that names the learning rate', async () => {
  const spec = tinySpec({ steps: 50, replicas: 2 })
  const training = {
    steps: 50,
    globalBatchSequences: 4,
    sequenceLength: 32,
    optimizer: { learningRate: '1e30', warmupSteps: 0 },
  }
  const ends = await (await TestGang.start({ ...Object(spec), training }, temporaryFolder())).ends()
  for (const { code, record } of ends) {
    expect(code).toBe(EXIT.diverged.code)
    expect(record?.failure?.message).toMatch(/diverged.*learningRate/)
  }
})

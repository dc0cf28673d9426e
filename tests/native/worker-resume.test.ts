import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { EXIT } from '../../crds/contract.ts'
import {
  checkpointFolders,
  lossCurve,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  untilStep,
} from './worker-gang.ts'

test('SIGTERM to one rank: all save the same step, end with 143, and continue bit for bit', async () => {
  const whole = temporaryFolder()
  const broken = temporaryFolder()
  const spec = tinySpec({ steps: 900, replicas: 2, everySteps: 1000 })
  await trainToEnd(spec, whole)
  const gang = await TestGang.start(spec, broken)
  await untilStep(gang, 3)
  gang.kill(1, 'SIGTERM')
  const ends = await gang.ends()
  expect(ends.map(({ code }) => code)).toEqual([EXIT.terminated.code, EXIT.terminated.code])
  const stopped = ends[0]?.record?.progress?.step
  expect(stopped).toBeLessThan(900)
  expect(ends[1]?.record?.progress?.step).toBe(stopped)
  expect(checkpointFolders(broken)).toEqual([`step-${String(stopped).padStart(8, '0')}`])
  await trainToEnd(spec, broken)
  expect(lossCurve(broken)).toEqual(lossCurve(whole))
})

test('resumed with 1, 2, 4 and 2 ranks, and with experts replicated, training follows one curve', async () => {
  const straight = temporaryFolder()
  const moved = temporaryFolder()
  // Within the warm-up the learning rate does not depend on the number of steps, so that a leg may end early.
  const optimizer = { learningRate: '3e-3', warmupSteps: 60 }
  const leg = (steps: number, replicas: number, rest: object = {}) => {
    const { training, ...others } = Object(tinySpec({ steps, replicas }))
    return { ...others, training: { ...training, optimizer }, ...rest }
  }
  await trainToEnd(leg(50, 2), straight)
  await trainToEnd(leg(10, 1), moved)
  await trainToEnd(leg(20, 2), moved)
  await trainToEnd(leg(30, 4), moved)
  await trainToEnd(leg(40, 4, { parallelism: { expertParallelSize: 2 } }), moved)
  await trainToEnd(leg(50, 2), moved)
  const [expected, actual] = [lossCurve(straight), lossCurve(moved)]
  expect([...actual.keys()]).toEqual([...expected.keys()])
  // The sums over ranks are in another order; 50 steps leave differences of 1e-6.
  for (const [step, loss] of actual) expect(Math.abs(loss - (expected.get(step) ?? 0))).toBeLessThan(1e-4)
})

test('killed at any instant, a job continues from a whole checkpoint and ends with the same curve', async () => {
  const whole = temporaryFolder()
  const broken = temporaryFolder()
  const spec = tinySpec({ steps: 600, replicas: 2, everySteps: 2, keep: 3 })
  await trainToEnd(spec, whole)
  let seed = 12345
  let killed = 0
  for (let kill = 0; kill < 12; kill++) {
    seed = (seed * 1103515245 + 12345) % 2 ** 31
    const gang = await TestGang.start(spec, broken)
    await Promise.race([untilStep(gang, 1), gang.ends()])
    await sleep(seed % 400)
    for (const rank of [0, 1]) gang.kill(rank, 'SIGKILL')
    const ends = await gang.ends()
    killed += ends.filter(({ signal }) => signal === 'SIGKILL').length
    for (const { log } of ends) expect(log).not.toContain('not usable')
    const complete = checkpointFolders(broken).filter(name => name.startsWith('step-'))
    expect(complete.length).toBeLessThanOrEqual(4)
  }
  expect(killed).toBeGreaterThan(12)
  await trainToEnd(spec, broken)
  expect(lossCurve(broken)).toEqual(lossCurve(whole))
  expect(readdirSync(join(broken, 'checkpoints')).filter(name => name.startsWith('.tmp'))).toEqual([])
})

// Tests in which ranks are killed with SIGKILL at random instants, 50 times in all. Whatever a rank
// was doing, the job continues from a complete checkpoint.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { folderOf } from '../../../worker/checkpoint/contents.ts'
import {
  checkpointFolders,
  lossCurve,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  untilStep,
  wholeCheckpoints,
} from '../../support/worker-gang.ts'

const KEEP = 2
/**
 * A job is killed after this many new steps and milliseconds. A step and its checkpoint take some
 * 20 ms.
 */
const STEPS = 5
const LATER = 60
/**
 * Some kills come within these milliseconds after the start, in which a rank imports files, meets
 * the others, reads the checkpoint and does its first steps.
 */
const STARTING = 600
const OFTEN = process.env['SCMOE_SOAK'] ? 10 : 1
/** Time for all kills of a test on a slow machine. */
const DEADLINE = 300_000 * OFTEN

/** Random numbers in [0, 1). */
function numbersFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return state / 2 ** 31
  }
}

/**
 * The checkpoints after a kill, newest first, given those before it. Throws unless all expected
 * ones are there and complete.
 */
async function checkpointsOf(output: string, before: readonly number[]): Promise<number[]> {
  const steps = await wholeCheckpoints(output)
  const newest = steps[0] ?? 0
  expect(newest).toBeGreaterThanOrEqual(before[0] ?? 0)
  expect(steps.length).toBeGreaterThanOrEqual(Math.min(newest, KEEP))
  // A kill before the removal of the oldest checkpoint leaves one more.
  expect(steps.length).toBeLessThanOrEqual(Math.max(before.length, KEEP) + 1)
  return steps
}

const job = (replicas: number, steps: number, everySteps = 1) =>
  tinySpec({ replicas, steps, everySteps, keep: KEEP, warmupSteps: 1000 })

interface Killing {
  output: string
  replicas: number
  /** Steps done in the checkpoint that the run starts from. */
  saved: number
  random: () => number
}

/**
 * Runs a job and kills one rank or all of them. Returns how many ranks the kill ended, and the log.
 */
async function killedRun({ output, replicas, saved, random }: Killing) {
  const gang = await TestGang.start(job(replicas, 1_000_000), output)
  const early = random() < 0.2
  if (!early) await untilStep(gang, saved + 1 + Math.floor(random() * STEPS))
  await sleep(random() * (early ? STARTING : LATER))
  // If the ranks have not met yet, the others would wait for the killed one.
  const only = !early && random() < 0.5 ? Math.floor(random() * replicas) : undefined
  for (let rank = 0; rank < replicas; rank++) if (only === undefined || only === rank) gang.kill(rank, 'SIGKILL')
  const ends = await gang.ends()
  return {
    killed: ends.filter(({ signal }) => signal === 'SIGKILL').length,
    log: ends.map(({ log }) => log).join(''),
  }
}

const continuedAt = (log: string) => Number(/continuing after step (\d+)/.exec(log)?.[1] ?? 0)

// Broken once by files written under the final name: after the first kill a folder without an
// index; and by the oldest one removed before the new one had its name: fewer left than are kept.
test.each([
  { replicas: 1, kills: 36 * OFTEN },
  { replicas: 2, kills: 14 * OFTEN },
])(
  'killed $kills times on $replicas ranks, training ends where it ends when left alone',
  { timeout: DEADLINE },
  async ({ replicas, kills }) => {
    const seed = Number(process.env['SCMOE_TEST_SEED'] ?? Date.now() % 1_000_000)
    console.log(`SCMOE_TEST_SEED=${seed} kills at the same instants`)
    const random = numbersFrom(seed)
    const [whole, broken] = [temporaryFolder(), temporaryFolder()]
    let left: number[] = []
    let killed = 0
    for (let kill = 0; kill < kills; kill++) {
      const saved = left[0] ?? 0
      const run = await killedRun({ output: broken, replicas, saved, random })
      killed += run.killed
      expect(run.log).not.toContain('not usable')
      // A rank that is killed before it reads the checkpoint logs nothing about it.
      expect([0, saved]).toContain(continuedAt(run.log))
      left = await checkpointsOf(broken, left)
    }
    const saved = left[0] ?? 0
    expect(killed).toBeGreaterThanOrEqual(kills)
    expect(saved).toBeGreaterThan(kills / 8)
    const steps = saved + 5
    const [last] = await trainToEnd(job(replicas, steps), broken)
    expect(continuedAt(last?.log ?? '')).toBe(saved)
    expect(checkpointFolders(broken)).toEqual([steps - 1, steps].map(folderOf))
    await trainToEnd(job(replicas, steps, 1_000_000), whole)
    expect(lossCurve(broken)).toEqual(lossCurve(whole))
    expect(finalOf(broken)).toEqual(finalOf(whole))
  },
)

function finalOf(output: string): unknown {
  const { loss, evaluationLoss }: { loss?: unknown; evaluationLoss?: unknown } = JSON.parse(
    readFileSync(join(output, 'summary.json'), 'utf8'),
  )
  return { loss, evaluationLoss }
}

// Tests of several ranks in one pod, as on a node with several GPUs. There are none here, so the
// ranks compute on CPUs, which makes no difference to the pod.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ENV, EXIT } from '../../../crds/contract.ts'
import { checkpointFolders, TestGang, temporaryFolder, tinySpec, untilStep } from '../../support/worker-gang.ts'

const RANKS = 2
/** The environment that the operator gives a pod of two ranks. */
const POD = { [ENV.worldSize]: String(RANKS), [ENV.localWorldSize]: String(RANKS), [ENV.backend]: 'cpu' }
const podSpec = (steps: number) =>
  tinySpec({ steps, replicas: 1, rest: { workers: { replicas: 1, gpusPerWorker: RANKS } } })
const startPod = async (steps: number, output: string) => TestGang.start(podSpec(steps), output, POD)

/** The pids of processes that the pod's first process has started. */
function ranksOf(pod: TestGang): number[] {
  const pid = pod.children[0]?.pid
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
}
const isAlive = (pid: number) => {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}
const losses = (folder: string) =>
  readFileSync(join(folder, 'losses.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .flatMap(line => (JSON.parse(line) as { loss?: number }).loss ?? [])

describe('a pod with two ranks', () => {
  test('trains as two pods with one do, and ends with the words of its first', async () => {
    const [inOne, inTwo] = [temporaryFolder(), temporaryFolder()]
    const [end] = await (await startPod(4, inOne)).ends()
    expect({ code: end?.code, log: end?.code === 0 ? '' : end?.log }).toEqual({ code: 0, log: '' })
    expect(end?.record?.progress).toMatchObject({ rank: 0, step: 4 })
    expect(end?.record?.failure).toBeUndefined()
    await (await TestGang.start(tinySpec({ steps: 4, replicas: RANKS }), inTwo)).ends()
    expect(losses(inOne)).toHaveLength(4)
    expect(losses(inOne)).toEqual(losses(inTwo))
  })

  // Seen failing with the record of the rank that ended second, which is the survivor's: "rank 0:
  // ... rank 1 hung up".
  test('ends when one of them is killed, with its code and its number', async () => {
    const pod = await startPod(1_000_000, temporaryFolder())
    await untilStep(pod, 3)
    const ranks = ranksOf(pod)
    expect(ranks).toHaveLength(RANKS)
    process.kill(ranks[1] ?? 0, 'SIGKILL')
    const [end] = await pod.ends()
    expect(end?.code).toBe(137)
    expect(end?.record?.failure).toMatchObject({
      rank: 1,
      message: expect.stringMatching(/^rank 1 was killed by SIGKILL/),
    })
    expect(ranks.filter(isAlive)).toEqual([])
  })

  test('passes on that it is told to stop: all stop after the same step, with a checkpoint', async () => {
    const output = temporaryFolder()
    const pod = await startPod(1_000_000, output)
    await untilStep(pod, 3)
    pod.kill(0, 'SIGTERM')
    const [end] = await pod.ends()
    expect(end?.code).toBe(EXIT.terminated.code)
    expect(end?.record?.failure).toMatchObject({ reason: 'terminated' })
    expect(checkpointFolders(output).length).toBeGreaterThan(0)
  })

  test('leaves no rank behind when its first process is killed', async () => {
    const pod = await startPod(1_000_000, temporaryFolder())
    await untilStep(pod, 3)
    const ranks = ranksOf(pod)
    pod.kill(0, 'SIGKILL')
    await pod.ends()
    await expect.poll(() => ranks.filter(isAlive), { timeout: 10_000 }).toEqual([])
  })

  test('says which rank has no GPU, as what it fails of for good', async () => {
    const pod = await TestGang.start(podSpec(4), temporaryFolder(), { ...POD, [ENV.backend]: 'cuda' })
    const [end] = await pod.ends()
    expect(end?.code).toBe(EXIT.deviceMissing.code)
    expect(EXIT.deviceMissing.permanent).toBe(true)
    expect(end?.record?.failure).toMatchObject({
      reason: 'deviceMissing',
      message: expect.stringMatching(/^rank [01]: /),
    })
  })
})

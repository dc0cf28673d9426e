// Tests of volumes on which no checkpoint can be written. Each is found out before the first step,
// by an error that names the folder and the reason.

import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EXIT } from '../../../crds/contract.ts'
import { mountDead, mountDisk, mountReadOnly, unmountAll } from '../../support/files/mounts.ts'
import {
  checkpointFolders,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  wholeCheckpoints,
} from '../../support/worker-gang.ts'

let output: string
// The hook that removes the folder runs later, because it was there before.
afterEach(unmountAll)
beforeEach(() => {
  output = temporaryFolder()
})

const job = (steps: number, replicas = 1) => tinySpec({ steps, replicas, everySteps: 5, warmupSteps: 100 })

/** Runs a job without end, and returns what its ranks ended with. No rank has done a step. */
async function refused(replicas: number): Promise<string[]> {
  const ends = await (await TestGang.start(job(1_000_000, replicas), output)).ends()
  for (const { code, record, log } of ends) {
    expect(log).not.toMatch(/"step":\d+,"loss"/)
    expect([code, record?.progress?.tokensPerSecond]).toEqual([EXIT.checkpoint.code, undefined])
  }
  return ends.map(({ record }) => record?.failure?.message ?? '')
}

const folder = () => join(output, 'checkpoints')

describe('before the first step, the folder and the reason are named:', () => {
  // Seen failing without the look: the ranks ended with the exit code of an internal error.
  test.for([
    { what: 'the folder of checkpoints is read-only on two ranks', replicas: 2, path: folder },
    { what: 'the output is read-only', replicas: 1, path: () => output },
  ])('$what when training is continued', async ({ replicas, path }, context) => {
    await trainToEnd(job(5), output)
    mountReadOnly(path(), context)
    const messages = await refused(replicas)
    expect(messages[0]).toContain(
      `No checkpoint can be written to ${folder()}: EROFS: read-only file system. Check the volume`,
    )
    expect(checkpointFolders(output)).toEqual(['step-00000005'])
  })

  // Seen failing with the option `recursive`, which says ENOENT.
  test('the output is read-only and has no folder of checkpoints', async context => {
    mountReadOnly(output, context)
    expect((await refused(1))[0]).toContain(`The output folder ${output} cannot be created or written: EROFS`)
  })

  test('the volume is full when training is continued', async context => {
    mountDisk(output, 2, context)
    await trainToEnd(job(5), output)
    expect(() => writeFileSync(join(output, 'filler'), Buffer.alloc(4 << 20))).toThrow('ENOSPC')
    expect((await refused(2))[0]).toContain(
      `No checkpoint can be written to ${folder()}: ENOSPC: no space left on device`,
    )
    expect(await wholeCheckpoints(output)).toEqual([5])
    rmSync(join(output, 'filler'))
    const [end] = await trainToEnd(job(7), output)
    expect(end?.log).toContain('continuing after step 5')
  })

  test('a file has the name of the folder', async () => {
    writeFileSync(folder(), '')
    expect((await refused(1))[0]).toMatch(/output folder .* cannot be created or written: EEXIST/)
  })

  test('the server of the volume is gone', async context => {
    mkdirSync(folder())
    mountDead(folder(), 'gone', context)
    expect((await refused(1))[0]).toMatch(/output folder .* cannot be created or written: ENOTCONN/)
  })

  // Seen failing without the deadline: the worker waited until it was killed.
  test('the server of the volume does not answer', async context => {
    mkdirSync(folder())
    mountDead(folder(), 'silent', context)
    const env = { SCMOE_PEER_TIMEOUT_SECONDS: '2' }
    const [end] = await (await TestGang.start(job(5), output, env)).ends()
    // A process cannot exit while one of its threads waits for such a volume.
    expect(end).toMatchObject({ signal: 'SIGKILL', record: { failure: { reason: 'checkpoint' } } })
    expect(end?.record?.failure?.message).toMatch(
      /output folder .* cannot be created or written: ETIMEDOUT: .* no answer for 2 s/,
    )
  })
})

test('a folder of checkpoints that is gone is made again, and training starts over', async () => {
  await trainToEnd(job(5), output)
  rmSync(folder(), { recursive: true })
  await trainToEnd(job(5, 2), output)
  expect(await wholeCheckpoints(output)).toEqual([5])
})

import { chmodSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { EXIT } from '../../../crds/contract.ts'
import { freePort } from '../../../tools/free-port.ts'
import {
  checkpointFolders,
  PEER_TIMEOUT_SECONDS,
  TestGang,
  temporaryFolder,
  tinySpec,
  untilStep,
} from '../../support/worker-gang.ts'

const endless = (rest: object = {}) => tinySpec({ steps: 1_000_000, replicas: 2, rest })

describe('a rank that goes away', () => {
  test('killed: the other ends with peerLost and names it, long before the deadline', async () => {
    const gang = await TestGang.start(endless(), temporaryFolder())
    await untilStep(gang, 5)
    const killed = performance.now()
    gang.kill(1, 'SIGKILL')
    const [survivor] = await gang.ends()
    expect(performance.now() - killed).toBeLessThan((PEER_TIMEOUT_SECONDS * 1000) / 4)
    expect(survivor?.code).toBe(EXIT.peerLost.code)
    expect(survivor?.record?.failure).toMatchObject({ rank: 0, reason: 'peerLost', peer: 1 })
    expect(survivor?.record?.failure?.message).toMatch(/rank 1/)
    expect(survivor?.record?.progress?.step).toBeGreaterThanOrEqual(5)
  })

  test('stopped: the other gives up at the deadline and names it', async () => {
    const gang = await TestGang.start(endless(), temporaryFolder(), { SCMOE_PEER_TIMEOUT_SECONDS: '2' })
    await untilStep(gang, 5)
    gang.kill(0, 'SIGSTOP')
    const first = await Promise.race(
      gang.children.map(child => new Promise<number | null>(resolve => child.once('exit', resolve))),
    )
    expect(first).toBe(EXIT.peerLost.code)
    gang.kill(0, 'SIGKILL')
    const survivor = (await gang.ends())[1]
    expect(survivor?.record?.failure).toMatchObject({ rank: 1, reason: 'peerLost', peer: 0 })
  })

  test('told to stop twice: it ends at once, without a checkpoint', async () => {
    const output = temporaryFolder()
    const gang = await TestGang.start(
      endless({ checkpoint: { volume: { emptyDir: {} }, everySteps: 1_000_000 } }),
      output,
    )
    await untilStep(gang, 5)
    gang.kill(0, 'SIGSTOP')
    gang.kill(1, 'SIGTERM')
    gang.kill(1, 'SIGINT')
    await new Promise(resolve => gang.children[1]?.once('exit', resolve))
    gang.kill(0, 'SIGKILL')
    expect((await gang.ends())[1]?.code).toBe(EXIT.terminated.code)
    expect(checkpointFolders(output)).toEqual([])
  })
})

describe('what is wrong from the start', () => {
  const cases: [string, (folder: string) => string, RegExp][] = [
    ['a missing file', folder => join(folder, 'missing.txt'), /missing\.txt cannot be read: ENOENT/],
    ['a folder', folder => folder, /it is a folder/],
    [
      'an empty file',
      folder => writeText(folder, 0),
      /has 0 bytes \(it is empty\).*sequenceLength 32 needs at least 330/,
    ],
    ['a short file', folder => writeText(folder, 329), /has 329 bytes.*needs at least 330/],
  ]
  test.each(cases)('data: %s', async (_, make, message) => {
    const spec = endless({ data: { path: make(temporaryFolder()) } })
    for (const end of await (await TestGang.start(spec, temporaryFolder())).ends()) {
      expect(end.code).toBe(EXIT.badData.code)
      expect(end.record?.failure?.message).toMatch(message)
    }
  })

  test('an output folder that cannot be made ends the job before the ranks meet', async () => {
    const file = join(temporaryFolder(), 'file')
    writeFileSync(file, '')
    const [end] = await (await TestGang.start(endless(), join(file, 'output'))).ends()
    expect(end?.code).toBe(EXIT.checkpoint.code)
    expect(end?.record?.failure?.message).toContain('ENOTDIR')
  })

  test('data: a file that may not be read', async context => {
    const path = writeText(temporaryFolder(), 1000)
    chmodSync(path, 0)
    context.skip(process.getuid?.() === 0, 'root may read everything')
    const [end] = await (await TestGang.start(endless({ data: { path } }), temporaryFolder())).ends()
    expect(end?.code).toBe(EXIT.badData.code)
    expect(end?.record?.failure?.message).toContain('EACCES')
  })

  test.each(['SCMOE_HTTP_PORT', 'SCMOE_RENDEZVOUS'])('a taken port: %s', async variable => {
    const port = await freePort()
    const taken = createServer()
    await new Promise<void>(resolve => {
      taken.listen(port, '127.0.0.1', resolve)
    })
    const value = variable === 'SCMOE_RENDEZVOUS' ? `127.0.0.1:${port}` : String(port)
    const gang = await TestGang.start(endless(), temporaryFolder(), {
      [variable]: value,
      SCMOE_RENDEZVOUS_TIMEOUT_SECONDS: '1',
    })
    const [end] = await gang.ends()
    taken.close()
    expect(end?.code).toBe(EXIT.portInUse.code)
    expect(end?.record?.failure?.message).toContain(String(port))
    expect(end?.record?.failure?.message).toContain('EADDRINUSE')
  })

  test('an addon that is not there: what to do, and code 64', async () => {
    const gang = await TestGang.start(endless(), temporaryFolder(), { SCMOE_ADDON: '/nowhere/scmoe.node' })
    for (const end of await gang.ends()) {
      expect(end.code).toBe(EXIT.badConfig.code)
      expect(end.record?.failure?.message).toContain('Possible solutions')
    }
  })
})

function writeText(folder: string, bytes: number): string {
  const path = join(folder, 'text.txt')
  writeFileSync(path, 'x'.repeat(bytes))
  return path
}

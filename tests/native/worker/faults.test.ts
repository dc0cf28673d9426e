import { chmodSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ENV, EXIT } from '../../../crds/contract.ts'
import { freePort } from '../../../tools/free-port.ts'
import { folderOf } from '../../../worker/checkpoint/contents.ts'
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

test('data that goes bad during training ends the job after a whole step, which is saved', async () => {
  const path = join(temporaryFolder(), 'tokens')
  writeFileSync(path, Buffer.alloc(2 * 10_000))
  const output = temporaryFolder()
  const gang = await TestGang.start(
    endless({ data: { path, tokens: 'uint16' }, checkpoint: { volume: { emptyDir: {} }, everySteps: 1_000_000 } }),
    output,
  )
  await untilStep(gang, 5)
  writeFileSync(path, Buffer.alloc(2 * 10_000, 0xff))
  const ends = await gang.ends()
  const steps = ends.map(({ record }) => record?.progress?.step)
  expect(steps[0]).toBeGreaterThanOrEqual(5)
  expect(steps[1]).toBe(steps[0])
  expect(checkpointFolders(output)).toEqual([folderOf(steps[0] ?? -1)])
  const data = ends.filter(({ code }) => code === EXIT.badData.code)
  expect(data.length).toBeGreaterThan(0)
  for (const { record } of data)
    expect(record?.failure?.message).toMatch(/holds the token 65535 at place \d+ .* The file was changed at /)
  for (const { code } of ends) expect([EXIT.badData.code, EXIT.peerLost.code]).toContain(code)
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
    ['a token that the model lacks', writeWrongToken, /the token 300 at place 9000 \(byte 18000\).* new job/],
  ]
  test.each(cases)('data: %s', async (_, make, message) => {
    const path = make(temporaryFolder())
    const tokens = path.endsWith('.u16') ? 'uint16' : 'bytes'
    const spec = endless({ data: { path, tokens } })
    const gang = await TestGang.start(spec, temporaryFolder(), { SCMOE_RENDEZVOUS_TIMEOUT_SECONDS: '5' })
    const ends = await gang.ends()
    const failed = ends.filter(({ code }) => code === EXIT.badData.code)
    // Each rank looks at every token of one half of the file.
    expect(failed.length).toBe(tokens === 'bytes' ? 2 : 1)
    for (const { record } of failed) {
      expect(record?.failure?.message).toMatch(message)
      expect(record?.progress?.step).toBe(0)
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

  test.each([ENV.httpPort, ENV.rendezvous])('a taken port: %s', async variable => {
    const port = await freePort()
    const taken = createServer()
    await new Promise<void>(resolve => {
      taken.listen(port, '127.0.0.1', resolve)
    })
    const value = variable === ENV.rendezvous ? `127.0.0.1:${port}` : String(port)
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

function writeWrongToken(folder: string): string {
  const bytes = Buffer.alloc(2 * 10_000)
  bytes.writeUInt16LE(300, 2 * 9000)
  const path = join(folder, 'tokens.u16')
  writeFileSync(path, bytes)
  return path
}

function writeText(folder: string, bytes: number): string {
  const path = join(folder, 'text.txt')
  writeFileSync(path, 'x'.repeat(bytes))
  return path
}

import { spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { EXIT } from '../../crds/contract.ts'
import { freePort } from '../free-port.ts'
import {
  checkpointFolders,
  lossCurve,
  PEER_TIMEOUT_SECONDS,
  TestGang,
  temporaryFolder,
  tinySpec,
  trainToEnd,
  untilStep,
} from './worker-gang.ts'

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

describe('a damaged checkpoint is skipped by all ranks, with a message', () => {
  const damages: [string, string, (file: string) => void][] = [
    ['a shard with one bit flipped', 'shard-1-of-2.safetensors', flipBit],
    ['a shard cut short', 'shard-0-of-2.safetensors', file => truncateSync(file, statSync(file).size - 100)],
    ['a missing shard', 'shard-1-of-2.safetensors', file => rmSync(file)],
    ['an index cut short', 'index.json', file => truncateSync(file, statSync(file).size >> 1)],
    ['an index with one bit flipped', 'index.json', flipBit],
    ['a missing index', 'index.json', file => rmSync(file)],
  ]
  test.each(damages)('%s', async (_, name, damage) => {
    const output = temporaryFolder()
    await trainToEnd(tinySpec({ steps: 20, replicas: 2 }), output)
    const whole = lossCurve(output)
    damage(join(output, 'checkpoints/step-00000020', name))
    const logs = (await trainToEnd(tinySpec({ steps: 20, replicas: 2 }), output)).map(({ log }) => log).join('')
    expect(logs).toMatch(new RegExp(`step-00000020 is not usable \\(${name}: .*step-00000010 is used instead`))
    expect(logs).toContain('continuing after step 10')
    expect(lossCurve(output)).toEqual(whole)
  })

  test('when none is left, training starts over and says so', async () => {
    const output = temporaryFolder()
    await trainToEnd(tinySpec({ steps: 10, replicas: 2, keep: 1 }), output)
    flipBit(join(output, 'checkpoints/step-00000010/shard-0-of-2.safetensors'))
    const [first] = await trainToEnd(tinySpec({ steps: 10, replicas: 2, keep: 1 }), output)
    expect(first?.log).toContain('training starts over')
    expect(lossCurve(output).size).toBe(10)
  })

  test('one of another model is refused with the name of the field, and stays', async () => {
    const output = temporaryFolder()
    await trainToEnd(tinySpec({ steps: 10, replicas: 2 }), output)
    const model = { blocks: 2, hiddenSize: 64, heads: 2, feedForwardSize: 64, experts: 4 }
    const ends = await (await TestGang.start(tinySpec({ steps: 20, replicas: 2, rest: { model } }), output)).ends()
    for (const { code, record } of ends) {
      expect(code).toBe(EXIT.badConfig.code)
      expect(record?.failure?.message).toContain('spec.model.hiddenSize 32, the job has 64')
    }
    expect(checkpointFolders(output)).toEqual(['step-00000010'])
  })
})

describe('a checkpoint that cannot be written', () => {
  let mounted: string | undefined
  afterEach(() => {
    if (mounted !== undefined) spawnSync('umount', ['-l', mounted])
    mounted = undefined
  })

  test('a full disk ends the job with code 73 and leaves the previous checkpoint whole', async context => {
    const output = temporaryFolder()
    // One checkpoint of this model takes about 0.6 MB.
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', output], { encoding: 'utf8' })
    context.skip(mount.status !== 0, `mounting a tmpfs needs root: ${mount.stderr.trim()}`)
    mounted = output
    const spec = tinySpec({ steps: 40, replicas: 2 })
    const ends = await (await TestGang.start(spec, output)).ends()
    expect(ends.map(({ code }) => code)).toEqual([EXIT.checkpoint.code, EXIT.checkpoint.code])
    const messages = ends.map(({ record }) => record?.failure?.message).join('\n')
    expect(messages).toContain(`ENOSPC: no space left on device`)
    expect(messages).toContain(join(output, 'checkpoints'))
    expect(checkpointFolders(output)).toEqual(['step-00000010'])
    const log = (await (await TestGang.start(spec, output)).ends()).map(end => end.log).join('')
    expect(log).toContain('continuing after step 10')
    expect(log).not.toContain('not usable')
  })

  test('an output folder that cannot be made ends the job before the ranks meet', async () => {
    const file = join(temporaryFolder(), 'file')
    writeFileSync(file, '')
    const [end] = await (await TestGang.start(endless(), join(file, 'output'))).ends()
    expect(end?.code).toBe(EXIT.checkpoint.code)
    expect(end?.record?.failure?.message).toContain('ENOTDIR')
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

function flipBit(file: string): void {
  const bytes = readFileSync(file)
  const at = Math.floor(bytes.length * 0.7)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(file, bytes)
}

function writeText(folder: string, bytes: number): string {
  const path = join(folder, 'text.txt')
  writeFileSync(path, 'x'.repeat(bytes))
  return path
}

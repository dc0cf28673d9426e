// Tests of connections to a rank's engine that come from no rank. Each rank is a process.

import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, it } from 'vitest'
import { freePort } from '../../../tools/free-port.ts'
import { World } from '../../support/engine/ranks.ts'
import { Crowd, say, Tap } from '../../support/strangers.ts'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

const MAGIC = 'ScMo\x02\0\0\0'
const HELLO_BYTES = 60

async function listening(size: number) {
  const world = new World(size)
  await world.create()
  const ports = (await world.each(rank => rank.call('listen'))).map(({ port }) => port)
  const connectAll = (peers = ports.map(port => ({ host: '127.0.0.1', port }))) =>
    world.each(rank => rank.call('connect', peers, 'attempt'))
  return { world, ports, connectAll, stop: async () => world[Symbol.asyncDispose]() }
}

const sums = async (world: World): Promise<(number | undefined)[]> =>
  (await world.each((rank, index) => rank.call('allReduce', Float64Array.of(index)))).map(([sum]) => sum)

// Seen failing with a listening rank that answers any hello.
it('strangers that come before the peers, whatever they say, hear nothing and hinder nobody', async () => {
  const { world, ports, connectAll, stop } = await listening(3)
  try {
    const said = [
      '',
      'GET / HTTP/1.1\r\nHost: example\r\n\r\n'.repeat(100),
      MAGIC,
      Buffer.concat([Buffer.from(`${MAGIC}\x01\0\0\0`), Buffer.alloc(48, 1)]),
      Buffer.alloc(1_000_000, 0xff),
    ]
    const heard = ports.flatMap(port => said.flatMap(bytes => [say(port, bytes), say(port, bytes, { end: true })]))
    using crowd = await Crowd.gather(500, ports[0] ?? 0)
    using other = await Crowd.gather(500, ports[1] ?? 0, MAGIC)
    await connectAll()
    expect(await sums(world)).toEqual([3, 3, 3])
    for (const each of await Promise.all(heard)) expect(each.heard).toHaveLength(0)
    expect(crowd.heard + other.heard).toBe(0)
    await expect.poll(() => crowd.open + other.open).toBe(0)
  } finally {
    await stop()
  }
})

// Seen failing without a limit of time.
it('a silent stranger ends while the rank still waits for its peer', async () => {
  const { world, ports, stop } = await listening(2)
  try {
    const peers = ports.map(port => ({ host: '127.0.0.1', port }))
    const waiting = world.rank(0).call('connect', peers, 'attempt')
    const { heard } = await say(ports[0] ?? 0, MAGIC)
    expect(heard).toHaveLength(0)
    await Promise.all([waiting, world.rank(1).call('connect', peers, 'attempt')])
  } finally {
    await stop()
  }
})

// Seen failing without the nonces that were answered before.
it('the recorded handshake of a peer is worth nothing to another', async () => {
  const { world, ports, stop } = await listening(3)
  try {
    using tap = await Tap.on(ports[0] ?? 0)
    const peers = ports.map(port => ({ host: '127.0.0.1', port }))
    const tapped = peers.with(0, { host: '127.0.0.1', port: tap.port })
    const joining = [0, 1].map(rank => world.rank(rank).call('connect', rank === 0 ? peers : tapped, 'attempt'))
    await expect.poll(() => tap.recorded.length, { timeout: 10_000 }).toBe(HELLO_BYTES + 32)
    await sleep(100)
    for (const bytes of [tap.recorded, tap.recorded.subarray(0, HELLO_BYTES)])
      expect((await say(ports[0] ?? 0, bytes)).heard).toHaveLength(0)
    await Promise.all([...joining, world.rank(2).call('connect', peers, 'attempt')])
    expect(await sums(world)).toEqual([3, 3, 3])
  } finally {
    await stop()
  }
})

it('a program that listens in the place of a rank is not taken for it', async () => {
  const { world, ports, stop } = await listening(2)
  try {
    const impostor = createServer(socket => {
      socket.on('error', () => undefined)
      socket.on('data', chunk => socket.write(chunk)) // the rank's own hello, and zeros
      socket.write(Buffer.alloc(48))
    })
    const port = await freePort()
    await new Promise<void>(resolve => {
      impostor.listen(port, '127.0.0.1', resolve)
    })
    closing.push(() => impostor.close())
    const peers = ports.map(each => ({ host: '127.0.0.1', port: each }))
    const misled = world.rank(1).call('connect', peers.with(0, { host: '127.0.0.1', port }), 'attempt')
    const first = await Promise.race([misled.then(() => 'taken'), sleep(1000, 'not taken')])
    expect(first).toBe('not taken')
    misled.catch(() => undefined)
  } finally {
    await stop()
  }
})

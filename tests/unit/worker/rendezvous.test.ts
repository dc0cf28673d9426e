import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import { freePort } from '../../../tools/free-port.ts'
import type { Meeting, Mesh } from '../../../worker/ranks/meeting.ts'
import { ranges } from '../../../worker/ranks/reception.ts'
import { meet } from '../../../worker/ranks/rendezvous.ts'

const controllers: AbortController[] = []
afterEach(() => {
  for (const controller of controllers.splice(0)) controller.abort()
})

/** Makes meetings of one job. `logs` collects their messages. */
async function job(worldSize: number, logs: string[] = []) {
  const port = await freePort()
  const controller = new AbortController()
  controllers.push(controller)
  const enter = (rank: number, change: Partial<Meeting> = {}): Promise<Mesh> =>
    meet({
      jobUid: 'uid',
      attempt: 1,
      rank,
      worldSize,
      enginePort: 5000 + rank,
      rendezvous: { host: '127.0.0.1', port },
      deadlineMilliseconds: 20_000,
      signal: controller.signal,
      log: message => logs.push(message),
      ...change,
    })
  return { port, controller, enter, logs }
}

test('all ranks get one table and one token, whoever comes first', async () => {
  const { enter } = await job(4)
  const late = [3, 1, 2].map(rank => enter(rank))
  await sleep(100)
  const meshes = await Promise.all([enter(0), ...late])
  for (const mesh of meshes) {
    expect(mesh).toEqual(meshes[0])
    expect(mesh.peers).toEqual([5000, 5001, 5002, 5003].map(port => ({ host: '127.0.0.1', port })))
    expect(mesh.token).toMatch(/^[0-9a-f]{32}$/)
  }
})

test('a rank alone needs no one', async () => {
  const { enter } = await job(1)
  expect((await enter(0)).peers).toHaveLength(1)
})

test('a name that does not resolve yet is tried again', async () => {
  const { enter, logs, controller } = await job(2)
  const ended = enter(1, { rendezvous: { host: 'nobody.invalid', port: 1 } }).catch((error: unknown) => error)
  // Some resolvers take seconds to answer that a name does not exist.
  await vi.waitFor(() => expect(logs).toHaveLength(1), { timeout: 15_000 })
  expect(logs[0]).toMatch(/nobody\.invalid:1.*(ENOTFOUND|EAI_AGAIN).*trying again/)
  await sleep(300)
  expect(logs, 'once, however often it is tried').toHaveLength(1)
  controller.abort()
  expect(await ended).toMatchObject({ reason: 'terminated' })
})

test('at the deadline rank 0 lists who is missing', async () => {
  const { enter } = await job(8)
  const present = [1, 4].map(rank => enter(rank).catch(() => undefined))
  const failure = enter(0, { deadlineMilliseconds: 1500 })
  await expect(failure).rejects.toMatchObject({ reason: 'rendezvous' })
  await expect(failure).rejects.toThrow(/ranks 2-3, 5-7 of 8 had not/)
  controllers.at(-1)?.abort()
  await Promise.all(present)
})

test('strangers are dropped with one line each: garbage, too much, silence, half a line', async () => {
  const { enter, port, logs } = await job(2)
  const meeting = enter(0)
  const say = (bytes: string | Buffer, end: boolean) =>
    new Promise<void>(resolve => {
      const socket = connect(port, '127.0.0.1', () => (end ? socket.end(bytes) : socket.write(bytes)))
      socket.on('error', () => resolve())
      socket.on('close', () => resolve())
      socket.resume()
    })
  await sleep(50)
  await say('GET / HTTP/1.1\r\n\r\n', false)
  await say(Buffer.alloc(100_000, 0xff), false)
  await say('{"magic":', true)
  await say(`${JSON.stringify({ magic: 'scmoe-rendezvous-1', rank: 1 })}\n`, false)
  expect(logs.filter(line => line.includes('dropped'))).toHaveLength(4)
  const [zero, one] = await Promise.all([meeting, enter(1)])
  expect(one).toEqual(zero)
})

test('another job, an older attempt, another world and a wrong rank are refused', async () => {
  const { enter, logs } = await job(2)
  const meeting = enter(0)
  await expect(enter(1, { attempt: 0 })).rejects.toThrow(/refused rank 1: rank 0 runs attempt 1, not 0/)
  await expect(enter(1, { worldSize: 3 })).rejects.toThrow(/expects 2 ranks, not 3/)
  // Rank 0 of a deleted job of the same name may still answer, so a rank asks again until the
  // deadline.
  const others = [{ jobUid: 'other' }, { attempt: 2 }].map(change =>
    enter(1, { ...change, deadlineMilliseconds: 1500 }).catch((error: unknown) => error),
  )
  expect(await Promise.all(others)).toMatchObject([
    { reason: 'rendezvous', peer: 0, message: expect.stringMatching(/belongs to job uid, not other/) },
    { reason: 'rendezvous', peer: 0, message: expect.stringMatching(/runs attempt 1, not 2/) },
  ])
  expect(logs.some(line => line.includes('refused rank 1'))).toBe(true)
  await Promise.all([meeting, enter(1)])
})

test('a rank that announces itself again replaces its former self', async () => {
  const { enter } = await job(3)
  const meeting = enter(0)
  const former = enter(1, { enginePort: 1111 })
  const refused = former.catch(String)
  await sleep(100)
  const meshes = [meeting, enter(1, { enginePort: 2222 })]
  expect(await refused).toContain('another process announced itself as rank 1')
  meshes.push(enter(2))
  for (const mesh of await Promise.all(meshes)) expect(mesh.peers[1]).toEqual({ host: '127.0.0.1', port: 2222 })
})

test('a rank that dies while waiting is missing again', async () => {
  const { enter } = await job(3)
  const meeting = enter(0)
  const dying = new AbortController()
  const dead = enter(1, { signal: dying.signal }).catch(() => 'dead')
  await sleep(100)
  dying.abort()
  expect(await dead).toBe('dead')
  await sleep(50)
  const two = enter(2)
  const early = await Promise.race([meeting, sleep(200, 'waiting')])
  expect(early).toBe('waiting')
  const [mesh] = await Promise.all([meeting, two, enter(1, { enginePort: 7777 })])
  expect(mesh.peers[1]?.port).toBe(7777)
})

test('told to stop, everyone stops waiting', async () => {
  const { enter, controller } = await job(3)
  const waiting = [enter(0), enter(1)].map(meeting => expect(meeting).rejects.toMatchObject({ reason: 'terminated' }))
  await sleep(100)
  controller.abort()
  await Promise.all(waiting)
})

// The kernel does not answer connections to a stopped program whose queue of waiting connections is
// full. So its address is like that of a pod that is gone.
test('an address that answers nothing is given up after ten seconds and tried again', async () => {
  const { enter, port, logs, controller } = await job(2)
  const listen = `require('node:net').createServer().listen({ port: ${port}, host: '127.0.0.1', backlog: 1 }, () => console.log('up'))`
  const mute = spawn(process.execPath, ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] })
  const callers: Socket[] = []
  try {
    await once(mute.stdout, 'data')
    mute.kill('SIGSTOP')
    for (let unanswered = 0; unanswered < 2; ) {
      const caller = connect(port, '127.0.0.1').on('error', () => undefined)
      callers.push(caller)
      if (!(await Promise.race([once(caller, 'connect').then(() => true), sleep(300, false)]))) unanswered++
    }
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const waiting = enter(1).catch((error: unknown) => error)
    vi.advanceTimersByTime(10_000)
    const given = /does not answer yet \(no connection within 10 s\), trying again/
    await vi.waitFor(() => expect(logs.join('\n')).toMatch(given), { timeout: 10_000 })
    controller.abort()
    expect(await waiting).toMatchObject({ reason: 'terminated' })
  } finally {
    vi.useRealTimers()
    for (const caller of callers) caller.destroy()
    mute.kill('SIGKILL')
  }
})

test('a taken port is named', async () => {
  const { enter, port } = await job(2)
  const taken = createServer()
  await new Promise<void>(resolve => {
    taken.listen(port, '127.0.0.1', resolve)
  })
  await expect(enter(0)).rejects.toMatchObject({ reason: 'portInUse', message: expect.stringContaining(String(port)) })
  taken.close()
})

test('ranks are listed in ranges', () => {
  expect(ranges([1, 2, 3, 5, 8, 9])).toBe('1-3, 5, 8-9')
})

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
      secret: 'the secret of the job',
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
    expect(mesh.token).toMatch(/^[0-9a-f]{64}$/)
  }
})

test('a rank alone waits for nobody', async () => {
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

test('a rank of another job, attempt, world or secret is turned away without a word', async () => {
  const { enter, logs } = await job(2)
  const meeting = enter(0)
  const changes = [{ jobUid: 'other' }, { attempt: 0 }, { attempt: 2 }, { worldSize: 3 }, { secret: 'guessed' }]
  // Rank 0 of an earlier attempt may still answer, so a rank asks again until the deadline.
  const ends = await Promise.all(
    changes.map(change => enter(1, { ...change, deadlineMilliseconds: 700 }).catch((error: unknown) => error)),
  )
  const message = expect.stringMatching(/closed the connection without a word; it belongs to another job, attempt or/)
  expect(ends).toEqual(changes.map(() => expect.objectContaining({ reason: 'rendezvous', peer: 0, message })))
  expect(String(ends), 'figures of rank 0').not.toMatch(/uid|expects|attempt 1/)
  expect(logs.some(line => line.includes('another job, attempt or number of ranks'))).toBe(true)
  await Promise.all([meeting, enter(1)])
})

test('two meetings of one attempt have different tokens', async () => {
  const [first, second] = [await job(2), await job(2)]
  const [one] = await Promise.all([first.enter(0), first.enter(1)])
  const [other] = await Promise.all([second.enter(0), second.enter(1)])
  expect(one.token).not.toBe(other.token)
})

// Seen failing with a newcomer that replaces the guest.
test('the first guest keeps its rank while its connection lives', async () => {
  const { enter, logs } = await job(3)
  const meeting = enter(0)
  const first = enter(1, { enginePort: 1111 })
  await sleep(100)
  const second = enter(1, { enginePort: 2222, deadlineMilliseconds: 1000 }).catch(String)
  await vi.waitFor(() => expect(logs.join('\n')).toMatch(/rank 1 is here already/))
  const meshes = [meeting, first, enter(2)]
  for (const mesh of await Promise.all(meshes)) expect(mesh.peers[1]).toEqual({ host: '127.0.0.1', port: 1111 })
  expect(await second).toContain('could not join rank 0')
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

test('ranks that are told to stop do not wait any longer', async () => {
  const { enter, controller } = await job(3)
  const waiting = [enter(0), enter(1)].map(meeting => expect(meeting).rejects.toMatchObject({ reason: 'terminated' }))
  await sleep(100)
  controller.abort()
  await Promise.all(waiting)
})

// The kernel does not answer connections to a stopped program whose queue of waiting connections is
// full. So its address is like that of a pod that is gone.
test('an address that never answers is given up after ten seconds and tried again', async () => {
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

// The rendezvous of every rank but 0: it announces itself until rank 0 has answered.

import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { errnoText, WorkerFailure } from '../failure.ts'
import { plainHost } from './hosts.ts'
import type { Meeting, Mesh } from './meeting.ts'
import { announcementLine, KEEP_ALIVE, MOST_BYTES, parseAnswer, readLine, stopped } from './protocol.ts'

/**
 * A name may still stand for a pod that is gone, whose address never answers. After this time the
 * name is looked up again.
 */
const CONNECT_TIMEOUT = 10_000

/** Tries until rank 0 has answered or the deadline has passed. */
export async function join(meeting: Meeting): Promise<Mesh> {
  const { rendezvous, signal } = meeting
  const deadline = Date.now() + meeting.deadlineMilliseconds
  let last: string | undefined
  for (let delay = 50; ; delay = Math.min(2000, delay * 2)) {
    if (signal.aborted) throw stopped()
    const left = deadline - Date.now()
    if (left <= 0) break
    try {
      return await announce(meeting, left)
    } catch (error) {
      if (error instanceof WorkerFailure) throw error
      // An attempt that the deadline cut short says less than the attempt before it.
      if (last !== undefined && left < 1000 && Date.now() >= deadline) break
      const text = errnoText(error)
      if (text !== last)
        meeting.log(
          `rendezvous: rank 0 at ${rendezvous.host}:${rendezvous.port} does not answer yet (${text}), trying again`,
        )
      last = text
    }
    await sleep(Math.min(delay, Math.max(0, deadline - Date.now())), undefined, { signal }).catch(() => undefined)
  }
  throw new WorkerFailure(
    'rendezvous',
    `Rank ${meeting.rank} could not join rank 0 at ${rendezvous.host}:${rendezvous.port} within ${Math.round(meeting.deadlineMilliseconds / 1000)} s; the last attempt ended with: ${last ?? 'nothing was tried'}. Look at rank 0's pod and, in a cluster, at the headless Service.`,
    { peer: 0 },
  )
}

async function announce(meeting: Meeting, timeoutMilliseconds: number): Promise<Mesh> {
  const { jobUid, attempt, worldSize, rank, enginePort, signal } = meeting
  const socket = connect({ ...meeting.rendezvous, ...KEEP_ALIVE })
  const abort = () => socket.destroy(stopped())
  const late = setTimeout(() => socket.destroy(new Error('no answer: other ranks are missing')), timeoutMilliseconds)
  const mute = () => socket.destroy(new Error(`no connection within ${CONNECT_TIMEOUT / 1000} s`))
  const connecting = setTimeout(mute, CONNECT_TIMEOUT)
  signal.addEventListener('abort', abort)
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', resolve)
    })
    clearTimeout(connecting)
    const hostOfRank0 = plainHost(socket.remoteAddress)
    socket.write(announcementLine({ jobUid, attempt, worldSize, rank, port: enginePort }))
    const answer = parseAnswer(await readLine(socket, MOST_BYTES.answer))
    if (answer === undefined) throw new Error('what answers there is not rank 0 of a job')
    if ('refused' in answer) {
      if (answer.final)
        throw new WorkerFailure('rendezvous', `Rank 0 refused rank ${rank}: ${answer.refused}.`, { peer: 0 })
      throw new Error(answer.refused)
    }
    const { peers, token } = answer
    return { token, peers: [{ host: hostOfRank0, port: peers[0]?.port ?? 0 }, ...peers.slice(1)] }
  } finally {
    clearTimeout(late)
    clearTimeout(connecting)
    signal.removeEventListener('abort', abort)
    socket.destroy()
  }
}

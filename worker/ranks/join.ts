// The rendezvous of every rank but 0: it announces itself until rank 0 has answered.

import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'
import { plainHost } from './hosts.ts'
import type { Meeting, Mesh } from './meeting.ts'
import { attemptKey, engineToken, isSame, makeNonce, Proofs } from './proof.ts'
import {
  ConnectionClosed,
  helloLine,
  KEEP_ALIVE,
  Lines,
  lineOf,
  MOST_BYTES,
  parseChallenge,
  parseSigned,
  parseTable,
  stopped,
} from './protocol.ts'

/**
 * A name may still stand for a pod that is gone, whose address never answers or now belongs to
 * another program. After this time the name is looked up again.
 */
const CONNECT_TIMEOUT = 10_000

const UNKNOWN =
  'it closed the connection without a word; it belongs to another job, attempt or number of ranks, or has another secret'
const NOT_RANK_0 = 'what answers there is not rank 0 of this attempt'

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
  const { signal } = meeting
  const socket = connect({ ...meeting.rendezvous, ...KEEP_ALIVE })
  const abort = () => socket.destroy(stopped())
  const late = setTimeout(() => socket.destroy(new Error('no answer: other ranks are missing')), timeoutMilliseconds)
  const mute = () =>
    socket.destroy(new Error(`no ${socket.connecting ? 'connection' : 'answer'} within ${CONNECT_TIMEOUT / 1000} s`))
  const connecting = setTimeout(mute, CONNECT_TIMEOUT)
  signal.addEventListener('abort', abort)
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', resolve)
    })
    const hostOfRank0 = plainHost(socket.remoteAddress)
    const { peers, token } = await converse(meeting, socket, () => clearTimeout(connecting))
    return { token, peers: [{ host: hostOfRank0, port: peers[0]?.port ?? 0 }, ...peers.slice(1)] }
  } finally {
    clearTimeout(late)
    clearTimeout(connecting)
    signal.removeEventListener('abort', abort)
    socket.destroy()
  }
}

/** Speaks the protocol as a guest. Throws unless what answers is rank 0 of this attempt. */
async function converse(meeting: Meeting, socket: Socket, onKnown: () => void): Promise<Mesh> {
  const { rank, enginePort: port } = meeting
  const key = attemptKey(meeting)
  const own = { rank, port, nonce: makeNonce() }
  const proofs = new Proofs(key, own)
  const lines = new Lines(socket, MOST_BYTES.fromRank0)
  socket.write(helloLine({ ...own, proof: proofs.hello() }))
  const challenge = parseChallenge(await lines.next().catch(closed(UNKNOWN)))
  if (challenge === undefined || !isSame(challenge.proof, proofs.challenge(challenge.nonce)))
    throw new Error(NOT_RANK_0)
  onKnown()
  socket.write(lineOf({ proof: proofs.answer(challenge.nonce) }))
  const signed = parseSigned(
    await lines.next().catch(closed(`it closed the connection; it may have ended, or another rank ${rank} is there`)),
  )
  const table = signed && isSame(signed.proof, proofs.table(challenge.nonce, signed.table)) && parseTable(signed.table)
  if (!table) throw new Error(NOT_RANK_0)
  return { peers: table.peers, token: engineToken(key, table.session) }
}

/** Says what it means that the other side closed the connection. Other errors stay as they are. */
const closed =
  (meaning: string) =>
  (error: unknown): never => {
    const isClosed = error instanceof ConnectionClosed || errnoCode(error) === 'ECONNRESET'
    throw isClosed ? new Error(meaning) : error
  }

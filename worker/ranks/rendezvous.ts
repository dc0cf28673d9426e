// How the ranks find each other: everyone announces itself to rank 0, which answers all of them with the address table once nobody is missing.
// One line of JSON each way. What does not speak this, or speaks for another job or attempt, is turned away and never fatal to rank 0.

import { randomBytes } from 'node:crypto'
import { connect, createServer, isIP, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import type { PeerAddress } from '../engine.ts'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'

export interface Meeting {
  jobUid: string
  attempt: number
  rank: number
  worldSize: number
  /** Where rank 0 listens. */
  rendezvous: { host: string; port: number }
  /** Where this rank's engine listens. */
  enginePort: number
  deadlineMilliseconds: number
  signal: AbortSignal
  log: (message: string) => void
}

export interface Mesh {
  peers: PeerAddress[]
  /** Random, the same on every rank of this attempt: engines refuse connections without it. */
  token: string
}

const MAGIC = 'scmoe-rendezvous-1'
const MAX_ANNOUNCEMENT = 4096
const MAX_ANSWER = 1 << 20
const ANNOUNCE_TIMEOUT = 10_000
/** A name may still stand for a pod that is gone, whose address answers nothing at all: then it is looked up again. */
const CONNECT_TIMEOUT = 10_000

const Announcement = z.object({
  magic: z.literal(MAGIC),
  jobUid: z.string(),
  attempt: z.int(),
  worldSize: z.int(),
  rank: z.int().min(0),
  port: z.int().min(1).max(65_535),
})
type Announcement = z.infer<typeof Announcement>

const Address = z.object({ host: z.string(), port: z.int() })
const Answer = z.union([
  z.object({ peers: z.array(Address), token: z.string() }),
  z.object({ refused: z.string(), final: z.boolean() }),
])

/** Meets the other ranks. Throws a `rendezvous` failure that lists the missing ranks, or `portInUse` on rank 0. */
export async function meet(meeting: Meeting): Promise<Mesh> {
  if (meeting.worldSize === 1) {
    return { peers: [{ host: '127.0.0.1', port: meeting.enginePort }], token: randomBytes(16).toString('hex') }
  }
  return meeting.rank === 0 ? receiveAll(meeting) : join(meeting)
}

async function receiveAll(meeting: Meeting): Promise<Mesh> {
  const desk = new Desk(meeting)
  await desk.open()
  try {
    return await desk.complete()
  } finally {
    desk.close()
  }
}

/** Rank 0's side. */
class Desk {
  readonly #meeting: Meeting
  readonly #server: Server
  readonly #guests = new Map<number, { socket: Socket; address: PeerAddress }>()
  readonly #sockets = new Set<Socket>()
  #onChange: () => void = () => {}

  constructor(meeting: Meeting) {
    this.#meeting = meeting
    this.#server = createServer({ keepAlive: true, keepAliveInitialDelay: 5000 }, socket => this.#receive(socket))
    this.#server.maxConnections = 4 * meeting.worldSize + 64
  }

  async open(): Promise<void> {
    const { host, port } = this.#meeting.rendezvous
    // A loopback rendezvous is a gang on one machine: nothing outside it needs to reach the port.
    const interfaces = isLoopback(host) ? { host } : {}
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen({ port, ...interfaces }, resolve)
    }).catch((error: unknown) => {
      const inUse = errnoCode(error) === 'EADDRINUSE'
      const advice = inUse
        ? 'another process listens there; stop it or change spec.network.port'
        : 'check spec.network.port'
      throw new WorkerFailure(
        'portInUse',
        `Rank 0 cannot listen on the rendezvous port ${port} (${errnoText(error)}): ${advice}.`,
      )
    })
  }

  /** Resolves when every rank has announced itself, having answered all of them. */
  async complete(): Promise<Mesh> {
    const { worldSize, deadlineMilliseconds, signal } = this.#meeting
    const all = Promise.withResolvers<void>()
    const late = setTimeout(() => all.reject(this.#missing()), deadlineMilliseconds)
    const stop = () => all.reject(stopped())
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
    this.#onChange = () => {
      if (this.#guests.size === worldSize - 1) all.resolve()
    }
    await all.promise.finally(() => {
      clearTimeout(late)
      signal.removeEventListener('abort', stop)
    })
    const peers = Array.from({ length: worldSize }, (_, rank) =>
      rank === 0
        ? { host: '', port: this.#meeting.enginePort }
        : (this.#guests.get(rank)?.address ?? { host: '', port: 0 }),
    )
    const mesh = { peers, token: randomBytes(16).toString('hex') }
    for (const { socket } of this.#guests.values()) socket.end(`${JSON.stringify(mesh)}\n`)
    await Promise.all([...this.#guests.values()].map(guest => flushed(guest.socket)))
    return { ...mesh, peers: [{ host: '127.0.0.1', port: this.#meeting.enginePort }, ...peers.slice(1)] }
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
  }

  #missing(): WorkerFailure {
    const missing = Array.from({ length: this.#meeting.worldSize - 1 }, (_, i) => i + 1).filter(
      rank => !this.#guests.has(rank),
    )
    const seconds = Math.round(this.#meeting.deadlineMilliseconds / 1000)
    return new WorkerFailure(
      'rendezvous',
      `After ${seconds} s rank${missing.length > 1 ? 's' : ''} ${ranges(missing)} of ${this.#meeting.worldSize} had not announced themselves on port ${this.#meeting.rendezvous.port}: look at their pods' events and logs.`,
    )
  }

  #receive(socket: Socket): void {
    const from = `${plainHost(socket.remoteAddress)}:${socket.remotePort}`
    this.#sockets.add(socket)
    const drop = (reason: string) => {
      if (socket.destroyed) return
      this.#meeting.log(`rendezvous: dropped a connection from ${from}: ${reason}`)
      socket.destroy()
    }
    const slow = setTimeout(() => drop(`no announcement within ${ANNOUNCE_TIMEOUT / 1000} s`), ANNOUNCE_TIMEOUT)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearTimeout(slow)
      this.#sockets.delete(socket)
      this.#leave(socket)
    })
    readLine(socket, MAX_ANNOUNCEMENT)
      .then(line => this.#judge(socket, line, drop))
      .catch((error: unknown) => drop(errnoText(error)))
      .finally(() => clearTimeout(slow))
  }

  #judge(socket: Socket, line: string, drop: (reason: string) => void): void {
    const parsed = Announcement.safeParse(parseJson(line))
    if (!parsed.success) return drop('it does not speak the rendezvous protocol')
    const refusal = this.#refusal(parsed.data)
    if (refusal) {
      this.#meeting.log(
        `rendezvous: refused rank ${parsed.data.rank} from ${plainHost(socket.remoteAddress)}: ${refusal.refused}`,
      )
      socket.end(`${JSON.stringify(refusal)}\n`)
      return
    }
    const { rank, port } = parsed.data
    const before = this.#guests.get(rank)
    this.#guests.set(rank, { socket, address: { host: plainHost(socket.remoteAddress), port } })
    if (before) {
      this.#meeting.log(`rendezvous: rank ${rank} announced itself again, the newer connection counts`)
      before.socket.end(
        `${JSON.stringify({ refused: `another process announced itself as rank ${rank}`, final: true })}\n`,
      )
    }
    this.#onChange()
  }

  #refusal(guest: Announcement): { refused: string; final: boolean } | undefined {
    const { jobUid, attempt, worldSize } = this.#meeting
    if (guest.jobUid !== jobUid)
      return { refused: `rank 0 belongs to job ${jobUid}, not ${guest.jobUid}`, final: false }
    // An older rank 0 may still be answering while its pod ends: a newer guest tries again, an older guest never fits.
    if (guest.attempt !== attempt)
      return { refused: `rank 0 runs attempt ${attempt}, not ${guest.attempt}`, final: guest.attempt < attempt }
    if (guest.worldSize !== worldSize)
      return { refused: `rank 0 expects ${worldSize} ranks, not ${guest.worldSize}`, final: true }
    if (guest.rank < 1 || guest.rank >= worldSize)
      return { refused: `rank ${guest.rank} is not one of 1 to ${worldSize - 1}`, final: true }
    return undefined
  }

  #leave(socket: Socket): void {
    for (const [rank, guest] of this.#guests) if (guest.socket === socket) this.#guests.delete(rank)
  }
}

/** The other ranks' side: tries until rank 0 has answered or the deadline has passed. */
async function join(meeting: Meeting): Promise<Mesh> {
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
      // An attempt that the deadline cut short right away says less than the one before it.
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
  const { jobUid, attempt, worldSize, rank, signal } = meeting
  const socket = connect({ ...meeting.rendezvous, keepAlive: true, keepAliveInitialDelay: 5000 })
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
    const announcement: Announcement = { magic: MAGIC, jobUid, attempt, worldSize, rank, port: meeting.enginePort }
    socket.write(`${JSON.stringify(announcement)}\n`)
    const answer = Answer.safeParse(parseJson(await readLine(socket, MAX_ANSWER)))
    if (!answer.success) throw new Error('what answers there is not rank 0 of a job')
    if ('refused' in answer.data) {
      if (answer.data.final)
        throw new WorkerFailure('rendezvous', `Rank 0 refused rank ${rank}: ${answer.data.refused}.`, { peer: 0 })
      throw new Error(answer.data.refused)
    }
    const { peers, token } = answer.data
    return { token, peers: [{ host: hostOfRank0, port: peers[0]?.port ?? 0 }, ...peers.slice(1)] }
  } finally {
    clearTimeout(late)
    clearTimeout(connecting)
    signal.removeEventListener('abort', abort)
    socket.destroy()
  }
}

/** The first line a socket sends; rejects when it is too long, or the socket ends before it. */
function readLine(socket: Socket, limit: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const take = (chunk: string) => {
      text += chunk
      const end = text.indexOf('\n')
      if (end < 0 && text.length <= limit) return
      // What else it sends is dropped, however much that is.
      socket.off('data', take)
      if (end >= 0) resolve(text.slice(0, end))
      else reject(new Error(`more than ${limit} bytes without an end of line`))
    }
    socket.setEncoding('utf8')
    socket.on('data', take)
    socket.once('error', reject)
    socket.once('end', () => reject(new Error('the connection ended before a whole line had come')))
    socket.once('close', () => reject(new Error('the connection was closed')))
  })
}

function flushed(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    if (socket.writableFinished || socket.destroyed) resolve()
    socket.once('finish', resolve)
    socket.once('close', () => resolve())
  })
}

function stopped(): WorkerFailure {
  return new WorkerFailure('terminated', 'Told to stop while waiting for the other ranks.')
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

/** Of a rendezvous: all ranks are on this machine. */
export const isLoopback = (host: string) => ['127.0.0.1', '::1', 'localhost'].includes(host)

/** An address without the prefix of IPv4 in IPv6. */
function plainHost(address: string | undefined): string {
  const host = (address ?? '').replace(/^::ffff:/i, '')
  return isIP(host) ? host : (address ?? '')
}

/** `1, 3-5`. */
export function ranges(ranks: readonly number[]): string {
  const parts: string[] = []
  for (let i = 0; i < ranks.length; ) {
    let j = i
    while (ranks[j + 1] === (ranks[j] ?? 0) + 1) j++
    parts.push(i === j ? `${ranks[i]}` : `${ranks[i]}-${ranks[j]}`)
    i = j + 1
  }
  return parts.join(', ')
}

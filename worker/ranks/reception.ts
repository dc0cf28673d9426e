// The rendezvous of rank 0: it listens for the announcements of all other ranks. A connection that
// does not speak the protocol, or that is for another job or attempt, is turned away and never
// fatal.

import { randomBytes } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import type { PeerAddress } from '../engine.ts'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'
import { isLoopback, plainHost } from './hosts.ts'
import type { Meeting, Mesh } from './meeting.ts'
import {
  type Announcement,
  KEEP_ALIVE,
  lineOf,
  MOST_BYTES,
  parseAnnouncement,
  type Refusal,
  readLine,
  stopped,
} from './protocol.ts'

const ANNOUNCE_TIMEOUT = 10_000

/** Waits for all other ranks and answers them. */
export async function receive(meeting: Meeting): Promise<Mesh> {
  const reception = new Reception(meeting)
  await reception.open()
  try {
    return await reception.complete()
  } finally {
    reception.close()
  }
}

class Reception {
  readonly #meeting: Meeting
  readonly #server: Server
  /** Ranks that have announced themselves and wait for the answer. */
  readonly #guests = new Map<number, { socket: Socket; address: PeerAddress }>()
  readonly #sockets = new Set<Socket>()
  #onChange: () => void = () => {}

  constructor(meeting: Meeting) {
    this.#meeting = meeting
    this.#server = createServer(KEEP_ALIVE, socket => this.#receive(socket))
    this.#server.maxConnections = 4 * meeting.worldSize + 64
  }

  async open(): Promise<void> {
    const { host, port } = this.#meeting.rendezvous
    // If ranks meet on the loopback address, nothing outside this machine needs to reach the port.
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

  /** Resolves when every rank has announced itself and all of them have been answered. */
  async complete(): Promise<Mesh> {
    const { worldSize, deadlineMilliseconds, signal, enginePort } = this.#meeting
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
    const others = Array.from(
      { length: worldSize - 1 },
      (_, i) => this.#guests.get(i + 1)?.address ?? { host: '', port: 0 },
    )
    const token = randomBytes(16).toString('hex')
    // Every other rank knows the host of rank 0 from its own connection.
    const answer = lineOf({ peers: [{ host: '', port: enginePort }, ...others], token })
    for (const { socket } of this.#guests.values()) socket.end(answer)
    await Promise.all([...this.#guests.values()].map(guest => flushed(guest.socket)))
    return { peers: [{ host: '127.0.0.1', port: enginePort }, ...others], token }
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
    readLine(socket, MOST_BYTES.announcement)
      .then(line => this.#judge(socket, line, drop))
      .catch((error: unknown) => drop(errnoText(error)))
      .finally(() => clearTimeout(slow))
  }

  #judge(socket: Socket, line: string, drop: (reason: string) => void): void {
    const announcement = parseAnnouncement(line)
    if (announcement === undefined) return drop('it does not speak the rendezvous protocol')
    const { rank, port } = announcement
    const host = plainHost(socket.remoteAddress)
    const refusal = this.#refusal(announcement)
    if (refusal) {
      this.#meeting.log(`rendezvous: refused rank ${rank} from ${host}: ${refusal.refused}`)
      socket.end(lineOf(refusal))
      return
    }
    const before = this.#guests.get(rank)
    this.#guests.set(rank, { socket, address: { host, port } })
    if (before) {
      this.#meeting.log(`rendezvous: rank ${rank} announced itself again, the newer connection counts`)
      before.socket.end(lineOf({ refused: `another process announced itself as rank ${rank}`, final: true }))
    }
    this.#onChange()
  }

  #refusal(guest: Announcement): Refusal | undefined {
    const { jobUid, attempt, worldSize } = this.#meeting
    if (guest.jobUid !== jobUid)
      return { refused: `rank 0 belongs to job ${jobUid}, not ${guest.jobUid}`, final: false }
    // Rank 0 of an older attempt may still answer while its pod ends, so a newer guest tries again.
    // An older guest never fits.
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

function flushed(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    if (socket.writableFinished || socket.destroyed) resolve()
    socket.once('finish', resolve)
    socket.once('close', () => resolve())
  })
}

/** Ranks in ascending order as text, e.g. `1, 3-5`. */
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

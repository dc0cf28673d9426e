// The rendezvous of rank 0: it listens for the announcements of all other ranks. A connection that
// does not prove to come from a rank of this attempt gets no answer, ends soon, and is never fatal.

import { createServer, type Server, type Socket } from 'node:net'
import type { PeerAddress } from '../engine.ts'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'
import { Callers } from '../report/callers.ts'
import { isLoopback, plainHost } from './hosts.ts'
import type { Meeting, Mesh } from './meeting.ts'
import { attemptKey, engineToken, isSame, makeNonce, Proofs } from './proof.ts'
import { KEEP_ALIVE, Lines, lineOf, MOST_BYTES, parseAnswer, parseHello, stopped } from './protocol.ts'

/** A rank sends its proof as soon as it is connected. */
const PROOF_TIMEOUT = 1000
const MOST_STRANGERS = 256
/** Linux allows as many by default (net.core.somaxconn). */
const BACKLOG = 4096
/** So many strangers are logged one by one. Then the log says their number when it has doubled. */
const LOGGED_STRANGERS = 8

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

/** A rank that has proven itself and waits for the table. */
interface Guest {
  socket: Socket
  address: PeerAddress
  /** Proof over the text of the table. */
  sign: (table: string) => string
}

class Reception {
  readonly #meeting: Meeting
  readonly #key: string
  readonly #server: Server
  readonly #callers: Callers
  readonly #guests = new Map<number, Guest>()
  /** Nonces of the hellos that were answered. A recorded hello is not answered again. */
  readonly #nonces = new Set<string>()
  #strangers = 0
  #onChange: () => void = () => {}

  constructor(meeting: Meeting) {
    this.#meeting = meeting
    this.#key = attemptKey(meeting)
    this.#server = createServer(KEEP_ALIVE)
    this.#callers = new Callers(this.#server, { idle: MOST_STRANGERS })
    this.#server.on('connection', socket => {
      void this.#receive(socket)
    })
  }

  async open(): Promise<void> {
    const { host, port } = this.#meeting.rendezvous
    // If ranks meet on the loopback address, nothing outside this machine needs to reach the port.
    const interfaces = isLoopback(host) ? { host } : {}
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen({ port, backlog: BACKLOG, ...interfaces }, resolve)
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
    const session = makeNonce()
    // Every other rank knows the host of rank 0 from its own connection.
    const table = JSON.stringify({ peers: [{ host: '', port: enginePort }, ...others], session })
    for (const { socket, sign } of this.#guests.values()) socket.end(lineOf({ table, proof: sign(table) }))
    await Promise.all([...this.#guests.values()].map(guest => flushed(guest.socket)))
    return { peers: [{ host: '127.0.0.1', port: enginePort }, ...others], token: engineToken(this.#key, session) }
  }

  close(): void {
    this.#callers.destroy()
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

  async #receive(socket: Socket): Promise<void> {
    const host = plainHost(socket.remoteAddress)
    const late = setTimeout(() => socket.destroy(new Error(`no proof within ${PROOF_TIMEOUT / 1000} s`)), PROOF_TIMEOUT)
    socket.on('close', () => {
      clearTimeout(late)
      this.#leave(socket)
    })
    try {
      await this.#converse(socket, host)
    } catch (error) {
      this.#tell(`${host}:${socket.remotePort ?? ''}`, errnoText(error))
      socket.destroy()
    } finally {
      clearTimeout(late)
    }
  }

  /**
   * Speaks the protocol as rank 0, up to the table. Throws a reason, which the other side never
   * hears.
   */
  async #converse(socket: Socket, host: string): Promise<void> {
    const { worldSize } = this.#meeting
    const lines = new Lines(socket, MOST_BYTES.fromGuest)
    const hello = parseHello(await lines.next())
    if (hello === undefined) throw new Error('it does not speak the rendezvous protocol')
    const { rank, port, nonce } = hello
    const proofs = new Proofs(this.#key, hello)
    if (!isSame(hello.proof, proofs.hello()))
      throw new Error('it is of another job, attempt or number of ranks, or has another secret')
    if (this.#nonces.has(nonce)) throw new Error('it repeats what another connection has said')
    if (rank < 1 || rank >= worldSize) throw new Error(`rank ${rank} is not one of 1 to ${worldSize - 1}`)
    this.#nonces.add(nonce)
    const own = makeNonce()
    socket.write(lineOf({ nonce: own, proof: proofs.challenge(own) }))
    const answer = parseAnswer(await lines.next())
    if (answer === undefined || !isSame(answer.proof, proofs.answer(own)))
      throw new Error(`it repeats what rank ${rank} has said, and cannot answer`)
    if (this.#guests.has(rank)) throw new Error(`rank ${rank} is here already, with a connection that lives`)
    if (socket.destroyed) return
    this.#callers.hold(socket)
    this.#guests.set(rank, { socket, address: { host, port }, sign: table => proofs.table(own, table) })
    this.#onChange()
  }

  /** Logs a connection that was turned away. A flood of them does not become a flood of lines. */
  #tell(from: string, reason: string): void {
    const count = ++this.#strangers
    if (count <= LOGGED_STRANGERS) this.#meeting.log(`rendezvous: dropped a connection from ${from}: ${reason}`)
    else if (Number.isInteger(Math.log2(count)))
      this.#meeting.log(`rendezvous: dropped ${count} connections so far, the last one from ${from}: ${reason}`)
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

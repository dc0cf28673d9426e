// The rendezvous protocol: lines of JSON, two in each direction.
//
//     guest   hello       its rank, its engine's port, a nonce, a proof
//     rank 0  challenge   a nonce, a proof over both nonces
//     guest   answer      a proof over both nonces
//     rank 0  table       the addresses of all ranks, once no rank is missing, with a proof
//
// Rank 0 says nothing before the guest's first proof holds, and a guest of another job, attempt or
// number of ranks has other proofs. So a stranger learns nothing, not even why it is turned away.

import type { Socket } from 'node:net'
import { z } from 'zod'
import { WorkerFailure } from '../failure.ts'

const MAGIC = 'scmoe-rendezvous-2'

/** The longest lines, in bytes, that the two sides read. */
export const MOST_BYTES = { fromGuest: 1024, fromRank0: 1 << 20 } as const

export const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelay: 5000 } as const

const port = z.int().min(1).max(65_535)
const nonce = z.string().regex(/^[0-9a-f]{32}$/)
const proof = z.string().regex(/^[0-9a-f]{64}$/)

const Hello = z.object({ magic: z.literal(MAGIC), rank: z.int().min(0), port, nonce, proof })
export type Hello = z.infer<typeof Hello>
const Challenge = z.object({ nonce, proof })
const Answer = z.object({ proof })
const Signed = z.object({ table: z.string(), proof })
const Table = z.object({ peers: z.array(z.object({ host: z.string(), port: z.int() })), session: nonce })
export type Table = z.infer<typeof Table>

export const lineOf = (message: object): string => `${JSON.stringify(message)}\n`
export const helloLine = (hello: Omit<Hello, 'magic'>): string => lineOf({ magic: MAGIC, ...hello })

/** Each returns undefined for a line that is something else. */
export const parseHello = (line: string): Hello | undefined => parse(Hello, line)
export const parseChallenge = (line: string) => parse(Challenge, line)
export const parseAnswer = (line: string) => parse(Answer, line)
export const parseSigned = (line: string) => parse(Signed, line)
export const parseTable = (text: string): Table | undefined => parse(Table, text)

function parse<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(line)).data
  } catch {
    return undefined
  }
}

/** The other side closed the connection. */
export class ConnectionClosed extends Error {}

/** The lines that a socket sends, read one at a time. */
export class Lines {
  readonly #socket: Socket
  readonly #limit: number
  #text = ''
  #end: Error | undefined
  #changed: () => void = () => {}

  constructor(socket: Socket, limit: number) {
    this.#socket = socket
    this.#limit = limit
    socket.setEncoding('utf8')
    socket.on('data', this.#take)
    socket.once('error', error => this.#finish(error))
    socket.once('end', () => this.#finish(new ConnectionClosed('the connection ended before a whole line had come')))
    socket.once('close', () => this.#finish(new ConnectionClosed('the connection was closed')))
  }

  /** Rejects if the line is too long or never ends. */
  async next(): Promise<string> {
    for (;;) {
      const end = this.#text.indexOf('\n')
      if (end >= 0) {
        const line = this.#text.slice(0, end)
        this.#text = this.#text.slice(end + 1)
        return line
      }
      if (this.#end) throw this.#end
      await new Promise<void>(resolve => {
        this.#changed = resolve
      })
    }
  }

  readonly #take = (chunk: string): void => {
    this.#text += chunk
    if (this.#text.length > this.#limit)
      this.#finish(new Error(`more than ${this.#limit} bytes without being asked for them`))
    this.#changed()
  }

  #finish(error: Error): void {
    this.#end ??= error
    // Without this listener, whatever else the socket sends is dropped.
    this.#socket.off('data', this.#take)
    this.#changed()
  }
}

export const stopped = (): WorkerFailure =>
  new WorkerFailure('terminated', 'Told to stop while waiting for the other ranks.')

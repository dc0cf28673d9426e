// The rendezvous protocol: one line of JSON from a rank to rank 0, and one line back.

import type { Socket } from 'node:net'
import { z } from 'zod'
import { WorkerFailure } from '../failure.ts'

const MAGIC = 'scmoe-rendezvous-1'

/** The longest lines, in bytes, that the two sides read. */
export const MOST_BYTES = { announcement: 4096, answer: 1 << 20 } as const

export const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelay: 5000 } as const

const Announcement = z.object({
  magic: z.literal(MAGIC),
  jobUid: z.string(),
  attempt: z.int(),
  worldSize: z.int(),
  rank: z.int().min(0),
  /** Port of the rank's engine. */
  port: z.int().min(1).max(65_535),
})
export type Announcement = Omit<z.infer<typeof Announcement>, 'magic'>

const Refusal = z.object({
  refused: z.string(),
  /** True if trying again cannot help. */
  final: z.boolean(),
})
export type Refusal = z.infer<typeof Refusal>

const Table = z.object({ peers: z.array(z.object({ host: z.string(), port: z.int() })), token: z.string() })
const Answer = z.union([Table, Refusal])
export type Answer = z.infer<typeof Answer>

export const lineOf = (answer: Answer): string => `${JSON.stringify(answer)}\n`

export const announcementLine = (announcement: Announcement): string =>
  `${JSON.stringify({ magic: MAGIC, ...announcement })}\n`

/** Undefined if the line is not an announcement. */
export const parseAnnouncement = (line: string): Announcement | undefined =>
  Announcement.safeParse(parseJson(line)).data

/** Undefined if the line is not an answer. */
export const parseAnswer = (line: string): Answer | undefined => Answer.safeParse(parseJson(line)).data

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

/** The first line that a socket sends. Rejects if it is too long or never ends. */
export function readLine(socket: Socket, limit: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const take = (chunk: string) => {
      text += chunk
      const end = text.indexOf('\n')
      if (end < 0 && text.length <= limit) return
      // Without this listener, whatever else the socket sends is dropped.
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

export const stopped = (): WorkerFailure =>
  new WorkerFailure('terminated', 'Told to stop while waiting for the other ranks.')

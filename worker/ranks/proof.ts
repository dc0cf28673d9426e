// The ranks of an attempt prove to each other that they know the job's secret. The secret and the
// keys that come from it never travel.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/** The attempt that a rank belongs to. */
export interface Membership {
  /** Random, and the same for all workers of a job. */
  secret: string
  jobUid: string
  attempt: number
  worldSize: number
}

type Field = string | number

/** HMAC-SHA256 in hexadecimal digits. A JSON list keeps the fields apart. */
const mac = (key: string, ...fields: readonly Field[]): string =>
  createHmac('sha256', key).update(JSON.stringify(fields)).digest('hex')

/** The key of one attempt. Another attempt, job or number of ranks has another key. */
export const attemptKey = ({ secret, jobUid, attempt, worldSize }: Membership): string =>
  mac(secret, 'scmoe attempt', jobUid, attempt, worldSize)

/** The token of the engines. `session` is rank 0's choice, so no two meetings share a token. */
export const engineToken = (key: string, session: string): string => mac(key, 'engine', session)

/** 16 random bytes that are used once, as hexadecimal digits. */
export const makeNonce = (): string => randomBytes(16).toString('hex')

/**
 * The proofs of one guest and rank 0. Each message has a word of its own, so that none can stand
 * for another.
 */
export class Proofs {
  readonly #key: string
  readonly #guest: readonly Field[]

  /** `nonce` is the guest's. */
  constructor(key: string, { rank, port, nonce }: { rank: number; port: number; nonce: string }) {
    this.#key = key
    this.#guest = [rank, port, nonce]
  }

  /** The guest's, in its first line. */
  hello(): string {
    return mac(this.#key, 'hello', ...this.#guest)
  }

  /** Rank 0's, over both nonces. */
  challenge(nonce: string): string {
    return mac(this.#key, 'challenge', ...this.#guest, nonce)
  }

  /** The guest's, over both nonces. */
  answer(nonce: string): string {
    return mac(this.#key, 'answer', ...this.#guest, nonce)
  }

  /** Rank 0's, over both nonces and the text of the table. */
  table(nonce: string, text: string): string {
    return mac(this.#key, 'table', ...this.#guest, nonce, text)
  }
}

/** Compares in a time that does not depend on where the proofs differ. */
export function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)]
  return a.length === b.length && timingSafeEqual(a, b)
}

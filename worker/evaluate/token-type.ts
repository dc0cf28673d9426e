// Decides how the file of tokens of an evaluation is read, and refuses what cannot be right. Pure.

import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import type { Trained } from '../checkpoint/contents.ts'
import { WorkerFailure } from '../failure.ts'

type TokenType = ScMoEJobSpec['data']['tokens']

export interface Known {
  /** The checkpoint or file that is evaluated, for messages. */
  source: string
  /** The words of the checkpoint about its training. */
  trained: Trained | undefined
  /** `--type`. */
  type: TokenType | undefined
  /** The job of `--job`. */
  spec: ScMoEJobSpec | undefined
  vocabulary: number
}

export interface Reading {
  tokens: TokenType
  /** Who says so. */
  because: string
}

/** The reason for a type that the user gave by hand. */
export const SAID = 'as --type says'

/** Vocabulary of a model of bytes. */
export const BYTE_VALUES = 256
const isBytes = (tokens: TokenType) => tokens === 'bytes'

/** Throws `badConfig` if two of the sources contradict each other, or if none says what to read. */
export function tokenType({ source, trained, type, spec, vocabulary }: Known): Reading {
  const job = spec?.data
  if (trained !== undefined) {
    const { tokens } = trained.data
    const differs = (other: TokenType) => isBytes(other) !== isBytes(tokens)
    if (type !== undefined && differs(type))
      throw bad(
        `--type is ${type}, but the checkpoint ${source} was trained on ${tokens}, in which the same numbers mean something else: leave --type out, or give a file of that kind.`,
      )
    if (job !== undefined && differs(job.tokens))
      throw bad(
        `The job has data.tokens ${job.tokens}, but the checkpoint ${source} was trained on ${tokens}: give the job of the checkpoint, or leave --job out.`,
      )
    return type === undefined ? { tokens, because: 'as in training' } : { tokens: type, because: SAID }
  }
  if (type !== undefined) return { tokens: type, because: SAID }
  if (job?.path !== undefined) return { tokens: job.tokens, because: 'as the job says' }
  if (vocabulary <= BYTE_VALUES) return { tokens: 'bytes', because: `because the vocabulary is ${vocabulary}` }
  throw bad(
    `Nothing says what the tokens of ${source} are, and its vocabulary of ${vocabulary} is not one of bytes: give --type uint16, uint32 or bytes, or a --job with data.path and data.tokens.`,
  )
}

const bad = (message: string) => new WorkerFailure('badConfig', message)

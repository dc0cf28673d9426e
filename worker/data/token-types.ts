// How tokens lie in a file, and how to tell one way from another. Pure.

import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'

export type TokenType = ScMoEJobSpec['data']['tokens']

export const WIDTH: Readonly<Record<TokenType, 1 | 2 | 4>> = { bytes: 1, uint16: 2, uint32: 4 }

export const typeText = (type: TokenType) => `spec.data.tokens ${type}`

type Numbers = Uint8Array | Uint16Array | Uint32Array

/** The little-endian numbers in whole bytes, which begin at offset 0 of their memory. */
export function numbersIn({ buffer, byteLength }: Uint8Array, width: 1 | 2 | 4): Numbers {
  if (width === 1) return new Uint8Array(buffer, 0, byteLength)
  return width === 2 ? new Uint16Array(buffer, 0, byteLength / 2) : new Uint32Array(buffer, 0, byteLength / 4)
}

/** The index of the first number that is not below `limit`, or -1. */
export function firstAtLeast(numbers: Numbers, limit: number): number {
  for (let i = 0; i < numbers.length; i++) if ((numbers[i] ?? 0) >= limit) return i
  return -1
}

/** A sample of fewer numbers says nothing. */
const LEAST_NUMBERS = 64

/**
 * The types of wide tokens as which a sample of a file, whole words from its beginning, makes
 * sense. Every token is below the vocabulary, and the halves of 32-bit tokens differ as such halves
 * do: the lower ones are many values, the upper ones few.
 */
export function guessTypes(sample: Uint8Array, vocabulary: number): TokenType[] {
  const words = numbersIn(sample, 4)
  const halves = numbersIn(sample, 2)
  if (words.length < LEAST_NUMBERS) return []
  const upper = new Set(halves.filter((_, i) => i % 2 === 1))
  const lower = new Set(halves.filter((_, i) => i % 2 === 0))
  const isWide = firstAtLeast(words, vocabulary) < 0 && lower.size > 4 * upper.size
  const isNarrow = firstAtLeast(halves, vocabulary) < 0 && !isWide
  return [...(isNarrow ? (['uint16'] as const) : []), ...(isWide ? (['uint32'] as const) : [])]
}

// Tests of how `scmoe eval` decides what a file of tokens is, and of the look at its first bytes.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import type { Trained } from '../../../worker/checkpoint/contents.ts'
import { looksLike } from '../../../worker/data/look.ts'
import { TokenFile } from '../../../worker/data/token-file.ts'
import { type Known, tokenType } from '../../../worker/evaluate/token-type.ts'

const trainedOn = (tokens: Trained['data']['tokens']): Trained => ({
  data: { source: '/data', tokens, length: 10 },
  learningRate: { peak: 1, warmupSteps: 0, totalSteps: 1 },
})
const job = (data: object) => ScMoEJobSpec.parse({ training: { steps: 1 }, data })
const read = (change: Partial<Known>) =>
  tokenType({ source: 'step-1', trained: undefined, type: undefined, spec: undefined, vocabulary: 256, ...change })

describe('the type of the tokens', () => {
  // Seen failing with bytes as the default: the perplexity was that of another text.
  it('is that of the training, which the checkpoint records', () => {
    for (const tokens of ['bytes', 'uint16', 'uint32'] as const)
      expect(read({ trained: trainedOn(tokens), vocabulary: 50_257 })).toEqual({ tokens, because: 'as in training' })
  })

  it('may be given in another width, but not in another kind', () => {
    expect(read({ trained: trainedOn('uint16'), type: 'uint32' })).toEqual({
      tokens: 'uint32',
      because: 'as --type says',
    })
    expect(() => read({ trained: trainedOn('uint16'), type: 'bytes' })).toThrow(
      '--type is bytes, but the checkpoint step-1 was trained on uint16',
    )
    expect(() => read({ trained: trainedOn('bytes'), type: 'uint16' })).toThrow('was trained on bytes')
    expect(() => read({ trained: trainedOn('uint16'), spec: job({ builtin: 'sotu' }) })).toThrow(
      'The job has data.tokens bytes, but the checkpoint step-1 was trained on uint16: give the job of the checkpoint',
    )
  })

  it('has to be given where neither a record nor the vocabulary says it', () => {
    expect(() => read({ vocabulary: 50_257 })).toThrow('give --type uint16, uint32 or bytes')
    expect(() => read({ vocabulary: 50_257, spec: job({ builtin: 'sotu' }) })).toThrow('give --type')
    expect(read({ vocabulary: 50_257, type: 'bytes' }).tokens).toBe('bytes')
    expect(read({ vocabulary: 50_257, spec: job({ path: '/a', tokens: 'uint16' }) }).tokens).toBe('uint16')
    expect(read({ vocabulary: 256 })).toEqual({ tokens: 'bytes', because: 'because the vocabulary is 256' })
  })
})

describe('a file of tokens', () => {
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-look-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const text = Buffer.from(
    'Call me Ishmael. Some years ago – never mind how long precisely – having little or no money\n'.repeat(60),
  )
  const numbers = new Uint8Array(Uint16Array.from({ length: 500 }, (_, i) => (i * 37) % 50_257).buffer)

  it('is told from text by its bytes, also where a character is cut', () => {
    expect([0, 1, 2, 3].map(more => looksLike(text.subarray(0, 90 + more)))).toEqual(Array(4).fill('text'))
    expect(looksLike(numbers)).toBe('binary')
    expect(looksLike(text.subarray(0, 20))).toBe('unknown')
    expect(looksLike(Uint8Array.from({ length: 100 }, () => 7))).toBe('unknown')
  })

  // Seen failing without the look: pairs of letters were token numbers below 32,000.
  it('of numbers is refused if it is text', () => {
    const path = join(folder, 'text')
    writeFileSync(path, text)
    const open = (tokens: 'bytes' | 'uint16') => new TokenFile(path, { tokens, vocabulary: 50_257 })
    expect(() => open('uint16')).toThrow(/text is text, but spec\.data\.tokens is uint16/)
    open('bytes').close()
  })
})

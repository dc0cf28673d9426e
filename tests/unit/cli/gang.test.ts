// Tests of the end of a local run: the rank that caused it comes first.

import { expect, test } from 'vitest'
import { consequence } from '../../../cli/run/gang.ts'

const ended = (code: number, reason: string, peer?: number) => ({
  code,
  failure: { rank: 0, reason, message: '', ...(peer !== undefined && { peer }) },
})

// Seen failing with an order by reasons alone: of two failed checkpoints the first to end was
// shown.
test('a rank that blames another comes after those that blame nobody, and success comes last', () => {
  const own = ended(73, 'checkpoint')
  const blaming = ended(73, 'checkpoint', 0)
  const lost = ended(75, 'peerLost')
  const done = { code: 0, failure: undefined }
  const sorted = [done, blaming, lost, own].toSorted((a, b) => consequence(a) - consequence(b))
  expect(sorted).toEqual([own, blaming, lost, done])
})

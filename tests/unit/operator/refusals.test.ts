import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Job } from '../../../operator/objects/wire.ts'
import { Refusals } from '../../../operator/refusals.ts'

const job = (name: string, change: Partial<Job['metadata']> = {}): Job => ({
  metadata: { name, namespace: 'ns', uid: `uid-${name}`, generation: 1, ...change },
})

describe('a job that the API server refuses', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  // Seen failing with the same delay each time.
  it('is tried less and less often, at least every two and a half minutes', () => {
    const refusals = new Refusals()
    const delays = Array.from({ length: 6 }, () => refusals.refused(job('a'), false) / 1000)
    for (const [i, least] of [15, 30, 60, 120, 120, 120].entries()) {
      expect(delays[i]).toBeGreaterThanOrEqual(least)
      expect(delays[i]).toBeLessThanOrEqual(1.25 * least)
    }
    expect(new Set(delays).size).toBe(6)
    expect(refusals.refused(job('b'), true) / 1000).toBeLessThan(1.3)
  })

  it('is tried again once it is edited, whatever is edited, and after a status not', () => {
    const refusals = new Refusals()
    refusals.refused(job('a'), false)
    expect(refusals.left(job('a'))).toBeGreaterThan(10_000)
    expect(refusals.left({ ...job('a'), status: { state: 'Pending' } })).toBeGreaterThan(10_000)
    expect(refusals.left(job('a', { generation: 2 }))).toBe(0)
    expect(refusals.left(job('a', { labels: { queue: 'b' } }))).toBe(0)
    expect(refusals.left(job('a', { annotations: { retry: 'now' } }))).toBe(0)
    expect(refusals.left(job('a', { uid: 'uid-2' }))).toBe(0)
    vi.advanceTimersByTime(20_000)
    expect(refusals.left(job('a'))).toBe(0)
  })

  // Seen failing without `accepted` of the others: each waited for its own time.
  it('is tried soon when another one got what it asked for, one after the other', () => {
    const refusals = new Refusals()
    const names = Array.from({ length: 40 }, (_, i) => `job-${i}`)
    for (const name of names) refusals.refused(job(name), false)
    const tried = new Set(refusals.accepted(job('job-0')))
    expect(tried.size).toBe(2)
    for (const key of tried) {
      expect(refusals.left(job(key.slice(3)))).toBe(0)
      for (const next of refusals.accepted(job(key.slice(3)))) tried.add(next)
    }
    expect(tried.size).toBe(39)
    expect(refusals.isRefusing('ns')).toBe(false)
  })

  it('is tried a second after a pod of its namespace ended, and not for pods of others', () => {
    const refusals = new Refusals()
    refusals.refused(job('a'), false)
    expect(refusals.room('other').keys).toEqual([])
    expect(refusals.room('ns')).toEqual({ keys: ['ns/a'], milliseconds: 1000 })
    expect(refusals.left(job('a'))).toBe(1000)
  })

  // Seen failing without it: 1,000 refused jobs were 8 requests a second.
  it('of a thousand in one namespace is not tried with more than one other in a second', () => {
    const refusals = new Refusals()
    const delays = Array.from({ length: 1000 }, (_, i) => refusals.refused(job(`job-${i}`), false))
    expect(Math.max(...delays)).toBeGreaterThanOrEqual(999_000)
    for (let i = 0; i < 1000; i++) refusals.forget(`ns/job-${i}`)
    expect(refusals.isRefusing('ns')).toBe(false)
  })

  it('has more time for an answer each time, as long as a webhook may take', () => {
    const refusals = new Refusals()
    const patience = Array.from({ length: 4 }, () => {
      const before = refusals.patience(job('a'))
      refusals.refused(job('a'), true)
      return before / 1000
    })
    expect(patience).toEqual([10, 20, 35, 35])
  })
})

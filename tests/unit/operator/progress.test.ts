// Tests of asking a thousand jobs for their progress over real HTTP. Each job's rank 0 has a
// loopback address of its own and answers well, slowly, badly or not at all.

import { createServer, type Server, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LABEL } from '../../../crds/contract.ts'
import { type Job, keyOf, type Pod } from '../../../operator/objects/wire.ts'
import { Scraper } from '../../../operator/progress.ts'

const INTERVAL_SECONDS = 5
const MOST_AT_A_TIME = 128
type Manner = 'good' | 'slow' | 'dead' | 'garbage' | 'endless'

const address = (i: number) => `127.1.${i >> 8}.${i & 255}`
const uid = (i: number) => `uid-${i}`
const record = (i: number) =>
  JSON.stringify({
    jobUid: uid(i),
    attempt: 1,
    rank: 0,
    step: ++steps,
    totalSteps: 1e6,
    observedTime: '2026-01-01T00:00:00Z',
  })
let steps = 0

/** The namespace of a job. */
let place: (i: number) => string

const job = (i: number): Job => ({
  metadata: { name: `job-${i}`, namespace: place(i), uid: uid(i) },
  spec: { training: { steps: 100 }, reporting: { intervalSeconds: INTERVAL_SECONDS } },
  status: { state: 'Running' },
})
const pod = (i: number): Pod => ({
  metadata: {
    name: `job-${i}-worker-0`,
    namespace: place(i),
    labels: { [LABEL.jobUid]: uid(i), [LABEL.attempt]: '1', [LABEL.rank]: '0' },
    ownerReferences: [{ apiVersion: 'v1', kind: 'ScMoEJob', name: `job-${i}`, uid: uid(i) }],
  },
  status: { phase: 'Running', podIP: address(i), containerStatuses: [{ name: 'worker', ready: true }] },
})

let server: Server
let open = 0
let most = 0
let manner: (i: number) => Manner
const asked = new Map<number, number>()

function answer(i: number, response: ServerResponse): void {
  asked.set(i, (asked.get(i) ?? 0) + 1)
  const how = manner(i)
  if (how === 'dead') return
  if (how === 'slow') void sleep(1000).then(() => response.end(record(i)))
  else if (how === 'endless') {
    const chunk = 'x'.repeat(16_384)
    const more = () => {
      while (!response.destroyed && response.write(chunk));
    }
    response.on('drain', more)
    more()
  } else response.end(how === 'good' ? record(i) : '<html>')
}

beforeEach(async () => {
  asked.clear()
  place = () => 'ns'
  most = 0
  server = createServer(({ socket }, response) => {
    const [, , high, low] = (socket.localAddress ?? '').replace('::ffff:', '').split('.').map(Number)
    most = Math.max(most, ++open)
    response.on('close', () => open--)
    answer((high ?? 0) * 256 + (low ?? 0), response)
  })
  await new Promise<void>(resolve => server.listen(0, '0.0.0.0', resolve))
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

/**
 * Runs until `enough` is true or the time is over. Returns how often each job was reported, and the
 * milliseconds that it took.
 */
async function scrape(
  count: number,
  enough: (times: (i: number) => number) => boolean,
  { longest = 90_000, shouldYield }: { longest?: number; shouldYield?: (namespace: string) => boolean } = {},
): Promise<{ times: (i: number) => number; took: number }> {
  const listening = server.address()
  const reports = new Map<string, number>()
  const jobs = new Map(Array.from({ length: count }, (_, i) => [keyOf(job(i)), job(i)]))
  const pods = new Map(Array.from({ length: count }, (_, i) => [`job-${i}-worker-0`, pod(i)]))
  const scraper = new Scraper({
    jobs: () => jobs.values(),
    job: key => jobs.get(key),
    pod: (_, name) => pods.get(name),
    report: async each => {
      reports.set(keyOf(each), (reports.get(keyOf(each)) ?? 0) + 1)
    },
    onScrape: () => undefined,
    log: pino({ level: 'silent' }),
    ...(shouldYield === undefined ? {} : { shouldYield }),
    port: typeof listening === 'object' ? (listening?.port ?? 0) : 0,
  })
  const stop = new AbortController()
  const running = scraper.run(stop.signal)
  const times = (i: number) => reports.get(keyOf(job(i))) ?? 0
  const start = performance.now()
  while (performance.now() - start < longest && !enough(times)) await sleep(100)
  const took = performance.now() - start
  stop.abort()
  await running
  return { times, took }
}

const ALL = Array.from({ length: 1000 }, (_, i) => i)

/** How often a job that is asked at once may be asked in so many milliseconds. */
const atMost = (took: number) => Math.floor(took / (INTERVAL_SECONDS * 1000)) + 1

describe('a thousand jobs', { timeout: 120_000 }, () => {
  /** Milliseconds for two rounds of jobs that all answer well, as a measure of this machine. */
  let untroubled = 0

  it('are all asked in every interval, so many at a time', async () => {
    manner = () => 'good'
    const { times, took } = await scrape(1000, each => ALL.every(i => each(i) >= 2))
    untroubled = took
    expect(ALL.filter(i => times(i) < 2)).toEqual([])
    expect(Math.max(...ALL.map(times))).toBeLessThanOrEqual(atMost(took))
    expect(most).toBeLessThanOrEqual(MOST_AT_A_TIME)
  })

  // Seen failing with 32 requests at a time and jobs that do not answer asked as often as others:
  // good jobs were asked once in five times that time.
  it('of which half are dead, slow, or send garbage or without end do not keep the others waiting, nor memory', async () => {
    const manners: Manner[] = ['dead', 'dead', 'slow', 'garbage', 'endless']
    manner = i => (i % 2 === 0 ? 'good' : (manners[(i >> 1) % manners.length] ?? 'good'))
    const of = (how: Manner) => ALL.filter(i => manner(i) === how)
    const before = process.memoryUsage().rss
    const enough = (each: (i: number) => number) =>
      of('good').every(i => each(i) >= 3) && of('slow').every(i => each(i) >= 1)
    const { times, took } = await scrape(1000, enough, { longest: 5 * untroubled })
    const good = of('good').map(times)
    expect(Math.min(...good)).toBeGreaterThanOrEqual(3)
    expect(Math.max(...good)).toBeLessThanOrEqual(atMost(took))
    expect(Math.min(...of('slow').map(times))).toBeGreaterThanOrEqual(1)
    for (const how of ['dead', 'garbage', 'endless'] as const) expect(Math.max(...of(how).map(times))).toBe(0)
    expect(most).toBeLessThanOrEqual(MOST_AT_A_TIME)
    expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(200)
  })
})

describe('jobs', () => {
  // Seen failing with one limit for all namespaces: the quiet one had to wait for time-outs.
  it('of other namespaces are asked in every interval while all workers of some hang', async () => {
    manner = i => (i < 400 ? 'dead' : 'good')
    place = i => (i < 400 ? `hangs-${i % 4}` : 'quiet')
    const quiet = Array.from({ length: 20 }, (_, i) => 400 + i)
    await scrape(420, () => quiet.every(i => asked.has(i)))
    expect(quiet.filter(i => !asked.has(i))).toEqual([])
    // All are due at the same time. The jobs that hang come first in the list.
    expect([...asked.keys()].filter(i => i < 400).length).toBeLessThan(250)
  })

  // Seen failing with one job at a time: each of those that hang held the others up for 2 s.
  it('are asked while their namespace has more urgent requests, past workers that hang', async () => {
    manner = i => (i % 2 === 0 ? 'dead' : 'good')
    const good = [1, 3, 5, 7]
    const { times } = await scrape(8, each => good.every(i => each(i) >= 1), { shouldYield: () => true })
    expect(good.filter(i => times(i) === 0)).toEqual([])
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(4)
  })
})

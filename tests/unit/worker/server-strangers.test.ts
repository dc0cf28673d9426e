// Tests of a worker's reports under callers who mean no good: the kubelet's probes and the operator
// are answered all the same.

import { get as ask } from 'node:http'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { ENV } from '../../../crds/contract.ts'
import { readConfig } from '../../../worker/config.ts'
import { WorkerMetrics } from '../../../worker/report/metrics.ts'
import { RunRecord } from '../../../worker/report/record.ts'
import { serveReport } from '../../../worker/report/server.ts'
import { Crowd, say } from '../../support/strangers.ts'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

async function serve(trace?: () => string): Promise<number> {
  const spec = { training: { steps: 10, globalBatchSequences: 4 }, workers: { replicas: 1 } }
  const config = readConfig({
    [ENV.jobName]: 'job',
    [ENV.jobUid]: 'uid',
    [ENV.rank]: '0',
    [ENV.worldSize]: '1',
    [ENV.rendezvous]: 'localhost:1',
    [ENV.spec]: JSON.stringify(spec),
  })
  const record = new RunRecord(config)
  const reported = { record, metrics: new WorkerMetrics(record), rank: 0, ready: true, trace }
  const server = await serveReport(reported, { port: 0, host: '127.0.0.1' })
  closing.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

/** Asks as the kubelet does, with one connection for each question. It may take its time here. */
const probe = (port: number, path: string): Promise<number | string> =>
  new Promise(resolve => {
    const request = ask({ port, path, host: '127.0.0.1', agent: false, timeout: 10_000 }, response => {
      response.resume()
      response.on('end', () => resolve(response.statusCode ?? 0))
      response.on('error', error => resolve(error.message))
    })
    request.on('timeout', () => request.destroy(new Error('no answer')))
    request.on('error', error => resolve(error.message))
  })

const CROWDS: [string, string][] = [
  ['say nothing', ''],
  ['send half a header', 'GET /readyz HTTP/1.1\r\nHost: worker\r\n'],
  ['announce a body that never comes', 'POST /progress HTTP/1.1\r\nHost: worker\r\nContent-Length: 1000000\r\n\r\n'],
  ['keep their connections after an answer', 'GET /healthz HTTP/1.1\r\nHost: worker\r\n\r\n'],
]

// Seen failing with maxConnections = 64, at which newcomers are dropped: no probe was answered.
test.each(CROWDS)('a thousand callers that %s fail no probe', async (_, bytes) => {
  const port = await serve()
  using first = await Crowd.gather(1000, port, bytes)
  const answers = new Map<string, unknown[]>()
  for (let round = 0; round < 4; round++) {
    const more = Crowd.gather(100, port, bytes)
    for (const path of ['/readyz', '/healthz', '/progress', '/metrics'])
      answers.set(path, [...(answers.get(path) ?? []), await probe(port, path)])
    closing.push((await more)[Symbol.dispose].bind(await more))
  }
  for (const [path, given] of answers) expect(given, path).toEqual([200, 200, 200, 200])
  expect(first.open).toBeLessThan(1000)
})

// Seen failing with Node's connectionsCheckingInterval of 30 seconds.
test.each(['', 'GET /readyz HTTP/1.1\r\nHo', 'GET /readyz HTTP/1.1\r\nHost: worker\r\n'])(
  'a caller that does not finish its question ends: %j',
  async bytes => {
    const { heard } = await say(await serve(), bytes)
    expect(heard.toString()).not.toContain('200')
  },
  10_000,
)

test('a header of a megabyte is refused', async () => {
  const { heard } = await say(await serve(), `GET / HTTP/1.1\r\nHost: worker\r\nX: ${'x'.repeat(1_000_000)}\r\n\r\n`)
  expect(heard.toString()).toMatch(/^(HTTP\/1\.1 431 |$)/)
})

// Seen failing with a trace that is made for each caller.
test('callers that do not read a large trace keep nobody else from an answer', async () => {
  let made = 0
  const port = await serve(() => {
    made++
    return 'x'.repeat(2_000_000)
  })
  expect(await probe(port, '/healthz')).toBe(200)
  for (let caller = 0; caller < 100; caller++) {
    const socket = connect(port, '127.0.0.1', () => socket.write('GET /trace HTTP/1.1\r\nHost: worker\r\n\r\n'))
    socket.pause()
    socket.on('error', () => undefined)
    closing.push(() => socket.destroy())
  }
  await expect.poll(() => made).toBe(1)
  await sleep(300)
  expect(await probe(port, '/readyz')).toBe(200)
  expect(await probe(port, '/trace'), 'the newest caller').toBe(200)
  expect(made).toBe(1)
})

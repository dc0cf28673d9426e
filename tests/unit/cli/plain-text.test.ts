// Tests that no text of others moves a cursor, changes a title or hides a line of a terminal.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { program } from '../../../cli/program.ts'
import { Failure, Progress, plainText } from '../../../crds/contract.ts'

// It clears the screen, sets the title, hides what follows, goes back and turns the direction.
const EVIL = '\u001b[2J\u001b]0;owned\u0007\u001b[8m\u009b1A\u007f\r\b\u202ehidden\u2066'
// oxlint-disable-next-line no-control-regex -- these are what is looked for
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/

const folder = mkdtempSync(join(tmpdir(), 'scmoe-plain-'))
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

/** The output of a command that runs in this process. */
async function output(...args: string[]): Promise<string> {
  const written = vi.spyOn(console, 'log').mockImplementation(() => undefined)
  try {
    await program(() => undefined).parseAsync(['node', 'scmoe', ...args])
    return written.mock.calls.flat().join('\n')
  } finally {
    written.mockRestore()
  }
}

/** Both streams of a command that fails, in a process of its own. */
async function complaint(...args: string[]): Promise<string> {
  const env = { ...process.env, FORCE_COLOR: '0' }
  const ended = promisify(execFile)(process.execPath, ['cli/scmoe.ts', ...args], { env })
  const { stdout, stderr } = await ended.catch((error: unknown) => {
    if (error instanceof Error && 'stdout' in error && 'stderr' in error) return error
    throw error
  })
  return `${String(stdout)}${String(stderr)}`
}

const message = `pod ${EVIL} failed`
const JOB = {
  metadata: { name: 'gpt', namespace: 'default', uid: 'uid-1', generation: 1 },
  spec: { training: { steps: 10 }, workers: { replicas: 1 } },
  status: {
    state: 'Failed',
    reason: EVIL,
    message,
    attempt: 1,
    restarts: 1,
    lastFailure: { attempt: 1, podName: EVIL, reason: EVIL, message, exitCode: 70 },
    progress: { step: 1, totalSteps: 10 },
  },
}
const POD = {
  metadata: {
    name: 'gpt-worker-0',
    namespace: 'default',
    labels: { 'scmoe.dev/job-name': 'gpt', 'scmoe.dev/rank': '0', 'scmoe.dev/attempt': '1' },
  },
  spec: { nodeName: EVIL },
  status: { phase: EVIL, message: EVIL },
}
const LOG = `plain\n${EVIL}\n${JSON.stringify({ level: 50, msg: EVIL, [EVIL]: EVIL })}\n`

/** An API server of a cluster in which everything is hostile. */
const server = createServer((request, response) => {
  const path = request.url ?? ''
  if (path.includes('/log')) response.end(LOG)
  else if (path.includes('/pods')) response.end(JSON.stringify({ items: [POD] }))
  else if (path.includes('/scmoejobs/gpt')) response.end(JSON.stringify(JOB))
  else if (path.includes('/scmoejobs/')) response.writeHead(403).end(JSON.stringify({ message: EVIL }))
  else response.end(JSON.stringify({ items: [{ ...JOB, metadata: { ...JOB.metadata, name: EVIL } }] }))
})
let kubeconfig = ''
beforeAll(async () => {
  await new Promise<void>(resolve => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'c',
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'u', user: {} }],
  }
  kubeconfig = file('kubeconfig', JSON.stringify(config))
})
afterAll(() => {
  server.close()
  rmSync(folder, { recursive: true, force: true })
})

// Seen failing for each command with its text written as it is.
test.each([
  ['why', 'gpt'],
  ['logs', 'gpt'],
  ['logs', 'gpt', '--raw'],
  ['logs', 'gpt', '--follow'],
  ['top', '--once'],
])('scmoe %s shows the words of a hostile cluster and obeys none', async (...args) => {
  const text = await output(...args, '--kubeconfig', kubeconfig)
  expect(text).toContain('\\u001b[2J')
  expect(text).not.toMatch(OBEYED)
})

test('scmoe validate shows the words of a hostile manifest and obeys none', async () => {
  const manifest = { kind: 'ScMoEJob', metadata: { name: EVIL }, spec: { training: { [EVIL]: EVIL } } }
  const text = await output(
    'validate',
    file('a.yaml', JSON.stringify({ apiVersion: 'scmoe.dev/v1alpha1', ...manifest })),
  )
  expect(text).toContain('\\u001b[2J')
  expect(text).not.toMatch(OBEYED)
})

test('an error that quotes the API server shows hostile words and obeys none', async () => {
  const text = await complaint('why', 'other', '--kubeconfig', kubeconfig)
  expect(text).toContain('\\u001b[2J')
  expect(text).not.toMatch(OBEYED)
})

test('the words of a worker are plain before they reach a status', () => {
  expect(Failure.parse({ rank: 0, reason: 'internal', message: EVIL }).message).toBe(plainText(EVIL))
  const record = { jobUid: 'u', attempt: 1, rank: 0, step: 1, totalSteps: 2, observedTime: '2026-01-01T00:00:00Z' }
  expect(Progress.parse({ ...record, schedule: EVIL }).schedule).toBe(plainText(EVIL))
})

test('plain text obeys nothing, keeps all else, and leaves JSON with its meaning', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      expect(plainText(text)).not.toMatch(OBEYED)
      expect(plainText(plainText(text))).toBe(plainText(text))
      const json = JSON.stringify({ text: text.replaceAll('\r\n', '\n') })
      expect(JSON.parse(plainText(json))).toEqual(JSON.parse(json))
    }),
    { numRuns: 20 },
  )
  expect(plainText('Größe\t9 µs\n日本語 🙂')).toBe('Größe\t9 µs\n日本語 🙂')
})

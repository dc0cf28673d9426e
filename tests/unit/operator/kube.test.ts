import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Kube } from '../../../operator/api/kube.ts'

const folder = mkdtempSync(join(tmpdir(), 'scmoe-kube-'))
const kubeconfig = join(folder, 'kubeconfig')
let connections = 0
const server = createServer((request, response) => {
  request.resume().on('end', () => response.end(request.url === '/login' ? '<html>sign in' : '{}'))
}).on('connection', () => connections++)

beforeAll(async () => {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const config = {
    clusters: [{ name: 'c', cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'u', user: {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  }
  writeFileSync(kubeconfig, JSON.stringify(config))
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
  rmSync(folder, { recursive: true })
})

// Seen failing without `reset: false`: each DELETE with a body had a connection of its own, and so
// a TLS handshake.
it('requests go through connections that are there, also deletes with a body', async () => {
  const kube = new Kube(kubeconfig)
  const body = { kind: 'DeleteOptions', preconditions: { uid: 'uid-1' } }
  for (let i = 0; i < 20; i++) await kube.call({ method: 'DELETE', path: '/api/v1/pods/a', body })
  // The pool may open a second connection before it sees that the first is free again.
  expect(connections).toBeLessThanOrEqual(2)
})

it('an answer that is not JSON is shown, with what was asked', async () => {
  await expect(new Kube(kubeconfig).call({ method: 'GET', path: '/login' })).rejects.toThrow(
    'GET /login: the answer is not JSON: <html>sign in',
  )
})

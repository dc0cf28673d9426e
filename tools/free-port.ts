// Finds loopback ports for the servers that tests, benchmarks and the embedded cluster start.

import { once } from 'node:events'
import { createServer, type Server } from 'node:net'

export interface Range {
  first: number
  count: number
}

// Below the range from which the kernel takes ports of outgoing connections, and below that of the
// embedded cluster's API servers.
const PORTS: Range = { first: 10_000, count: 10_000 }
/** The ranks of a pod serve on the ports that follow the first rank's. */
const STRIDE = 16
/** Random, so that two processes that search at the same time find different ports. */
let next = Math.floor(Math.random() * PORTS.count)

/**
 * A loopback port that nothing listened on a moment ago. Each call returns another one, which is
 * none of the 15 that follow an earlier one.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = PORTS.first + (next % PORTS.count)
    next += STRIDE
    const server = await listen(port)
    if (server === undefined) continue
    server.close()
    await once(server, 'close')
    return port
  }
}

/**
 * A server that listens on a free loopback port of the range, so that no other process can take it.
 */
export async function heldPort({ first, count }: Range): Promise<{ server: Server; port: number }> {
  for (;;) {
    const port = first + Math.floor(Math.random() * count)
    const server = await listen(port)
    if (server !== undefined) return { server, port }
  }
}

/** Undefined if the port is taken. */
function listen(port: number): Promise<Server | undefined> {
  const server = createServer()
  return new Promise(resolve => {
    server.once('error', () => resolve(undefined)).listen(port, '127.0.0.1', () => resolve(server))
  })
}

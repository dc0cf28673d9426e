import { once } from 'node:events'
import { createServer } from 'node:net'

// Below the range that the kernel uses for outgoing connections, and below the range of the API
// servers of tools/cluster.
const PORTS = { first: 10_000, count: 10_000 }
/** The ranks of a pod serve on the ports that follow the port of the first rank. */
const APART = 16
/** Each process starts at a random port, so that two processes rarely find the same one. */
let next = Math.floor(Math.random() * PORTS.count)

/** A loopback port that was free a moment ago, at least 16 after the port of the last call. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = PORTS.first + (next % PORTS.count)
    next += APART
    const server = createServer()
    const isFree = await new Promise<boolean>(resolve => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    server.close()
    await once(server, 'close')
    return port
  }
}

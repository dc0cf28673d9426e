import { once } from 'node:events'
import { createServer } from 'node:net'

// Below the range the kernel takes for outgoing connections, and below that of the API servers of tools/cluster.
const PORTS = { first: 10_000, count: 10_000 }
/** The ranks of a pod serve on the ports that follow the first one's. */
const APART = 16
/** In a row from somewhere else in each process, so that two that look at the same time do not find the same. */
let next = Math.floor(Math.random() * PORTS.count)

/** A loopback port that nothing listened on a moment ago, another each time, and none of the 15 after one given before. */
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

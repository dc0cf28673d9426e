// Chooses the ports on which rank 0 of a local run listens.

import { createServer } from 'node:net'

// Below the range from which the kernel takes the ports of outgoing connections.
const FIRST = 10_000
const COUNT = 20_000

/** The port on which the ranks meet, and the one that tells how far rank 0 is. */
export interface Ports {
  rendezvous: number
  progress: number
}

/**
 * Two loopback ports that nothing listened on a moment ago. Another process can take one before
 * rank 0 listens; `runGang` chooses again then.
 */
export async function freePorts(): Promise<Ports> {
  const rendezvous = await freePort()
  let progress = rendezvous
  while (progress === rendezvous) progress = await freePort()
  return { rendezvous, progress }
}

async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT)
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise(resolve => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

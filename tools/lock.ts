// Locks a name for one process on this machine. The lock is a Linux abstract socket, which the
// kernel frees when its holder ends in any way, so there are no stale lock files.

import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const RETRY_MILLISECONDS = 100

/** Runs `work` while holding the lock `name`; calls `onWait` once if another process holds it. */
export async function withLock<T>(name: string, work: () => Promise<T>, onWait?: () => void): Promise<T> {
  const address = `\0scmoe-${createHash('sha256').update(name).digest('hex').slice(0, 32)}`
  let held = await bind(address)
  if (held === undefined) onWait?.()
  while (held === undefined) {
    await sleep(RETRY_MILLISECONDS)
    held = await bind(address)
  }
  try {
    return await work()
  } finally {
    held.close()
  }
}

function bind(address: string): Promise<Server | undefined> {
  const server = createServer(socket => socket.destroy())
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined)
      else reject(error)
    })
    server.listen(address, () => resolve(server.unref()))
  })
}

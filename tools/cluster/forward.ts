// Forwards connections into another network namespace. A listening socket stays in the namespace in
// which it was created, so a process inside can accept connections from outside.

import { connect, type Server } from 'node:net'

export function forward(server: Server, target: { host: string; port: number }): void {
  server.on('connection', client => {
    const upstream = connect({ ...target, noDelay: true })
    client.setNoDelay(true)
    client.pipe(upstream).pipe(client)
    client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy())
    upstream.on('error', () => client.destroy()).on('close', () => client.destroy())
  })
}

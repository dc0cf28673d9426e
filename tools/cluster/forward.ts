// Hands connections on. A listening socket stays in the network namespace it was made in, so one made outside and given
// to a process inside is a door into a network that has no other.

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

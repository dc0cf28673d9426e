// Connections of somebody who is no rank and no caller with a question.

import { connect, type Socket } from 'node:net'

export interface Said {
  /** Whatever the other side sent. */
  heard: Buffer
}

/** Connects, says the bytes, and resolves when the other side has ended the connection. */
export function say(port: number, bytes: string | Uint8Array, { end = false } = {}): Promise<Said> {
  return new Promise(resolve => {
    const heard: Buffer[] = []
    const socket = connect(port, '127.0.0.1', () => {
      if (end) socket.end(bytes)
      else socket.write(bytes)
    })
    socket.on('data', chunk => heard.push(chunk))
    // Being dropped is what strangers expect.
    socket.on('error', () => undefined)
    socket.on('close', () => resolve({ heard: Buffer.concat(heard) }))
  })
}

/** Many connections that say the same and then wait. All of them are there when this resolves. */
export class Crowd implements Disposable {
  readonly sockets: Socket[] = []
  #heard = 0
  #open = 0

  static async gather(
    count: number,
    port: number,
    bytes: string | Uint8Array = '',
    host = '127.0.0.1',
  ): Promise<Crowd> {
    const crowd = new Crowd()
    await Promise.all(Array.from({ length: count }, () => crowd.#join(port, host, bytes)))
    return crowd
  }

  /** Bytes that they were sent, all together. */
  get heard(): number {
    return this.#heard
  }

  get open(): number {
    return this.#open
  }

  [Symbol.dispose](): void {
    for (const socket of this.sockets) socket.destroy()
  }

  #join(port: number, host: string, bytes: string | Uint8Array): Promise<void> {
    return new Promise(resolve => {
      const socket = connect(port, host, () => {
        this.#open++
        socket.write(bytes)
        socket.once('close', () => this.#open--)
        resolve()
      })
      this.sockets.push(socket)
      socket.on('data', chunk => {
        this.#heard += chunk.length
      })
      socket.on('error', () => resolve())
    })
  }
}

// Connections of somebody who is no rank and no caller with a question.

import { connect, createServer, type Socket } from 'node:net'
import { freePort } from '../../tools/free-port.ts'

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

/** Passes connections on to a port and keeps what came from the dialling side. */
export class Tap implements Disposable {
  readonly #ends: Socket[] = []
  readonly #recorded: Buffer[] = []
  readonly #server = createServer(socket => {
    const on = connect(this.#to, '127.0.0.1')
    this.#ends.push(socket, on)
    for (const end of [socket, on]) end.on('error', () => undefined)
    socket.on('data', chunk => this.#recorded.push(chunk))
    socket.pipe(on)
    on.pipe(socket)
  })
  readonly #to: number
  readonly port: number

  private constructor(to: number, port: number) {
    this.#to = to
    this.port = port
  }

  static async on(to: number): Promise<Tap> {
    const tap = new Tap(to, await freePort())
    await new Promise<void>(resolve => {
      tap.#server.listen(tap.port, '127.0.0.1', resolve)
    })
    return tap
  }

  get recorded(): Buffer {
    return Buffer.concat(this.#recorded)
  }

  [Symbol.dispose](): void {
    this.#server.close()
    for (const end of this.#ends) end.destroy()
  }
}

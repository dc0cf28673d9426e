// The connections of a server that anybody in the cluster may call. Those that have asked for
// nothing are limited in number: over the limit the oldest of them go, so that a newcomer with a
// question is heard.

import type { Server, Socket } from 'node:net'

interface Limits {
  /** Most connections that have asked for nothing. */
  idle: number
  /** Most connections that are held. Over it the oldest go, too. Default: no limit. */
  held?: number
}

/**
 * A caller's first words come a moment after its connection. Connections over the limit stay for so
 * long, so that a caller with something to ask does not go in the crowd.
 */
const MOMENT_MILLISECONDS = 25
/** Times the limit at which connections go at once. */
const CROWD = 4

export class Callers {
  readonly #limits: Limits
  /** Both in order of arrival. */
  readonly #idle = new Set<Socket>()
  readonly #held = new Set<Socket>()
  #timer: NodeJS.Timeout | undefined

  constructor(server: Server, limits: Limits) {
    this.#limits = limits
    server.on('connection', socket => this.#add(socket))
  }

  /** From now on the caller counts as one that is being served. */
  hold(socket: Socket): void {
    if (!this.#idle.delete(socket)) return
    this.#held.add(socket)
    shrink(this.#held, this.#limits.held ?? Number.POSITIVE_INFINITY)
  }

  /** The caller is served and has asked for nothing else yet. */
  release(socket: Socket): void {
    if (this.#held.delete(socket)) this.#enter(socket)
  }

  destroy(): void {
    clearTimeout(this.#timer)
    for (const socket of [...this.#idle, ...this.#held]) socket.destroy()
  }

  #add(socket: Socket): void {
    socket.once('close', () => {
      this.#idle.delete(socket)
      this.#held.delete(socket)
    })
    this.#enter(socket)
  }

  #enter(socket: Socket): void {
    const { idle } = this.#limits
    this.#idle.add(socket)
    shrink(this.#idle, CROWD * idle)
    if (this.#idle.size <= idle) return
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      shrink(this.#idle, idle)
    }, MOMENT_MILLISECONDS).unref()
  }
}

function shrink(sockets: Set<Socket>, most: number): void {
  for (const oldest of sockets) {
    if (sockets.size <= most) return
    sockets.delete(oldest)
    oldest.destroy()
  }
}

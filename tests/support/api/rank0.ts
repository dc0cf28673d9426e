// What answers the operator's questions for progress: rank 0 of each namespace's job has a loopback address of its own, so that tests can run at once.

import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import type { Pod } from '../../../operator/objects/wire.ts'
import { freePort } from '../../../tools/free-port.ts'
import { type Namespace, waitFor } from './operator.ts'

export const json =
  (text: string): RequestListener =>
  (_, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(text)

export class Rank0 {
  readonly address: string
  /** When it was asked, in milliseconds. */
  readonly asked: number[] = []
  #answer: RequestListener = (_, response) => response.writeHead(503).end()

  constructor(address: string) {
    this.address = address
  }

  /** From now on. */
  says(answer: RequestListener): void {
    this.#answer = answer
  }

  hear(request: IncomingMessage, response: ServerResponse): void {
    this.asked.push(performance.now())
    this.#answer(request, response)
  }

  async untilAsked(times: number): Promise<void> {
    await waitFor(`it to be asked ${times} times`, async () => this.asked.length >= times)
  }
}

export class Ranks {
  readonly port: number
  readonly #server: Server
  readonly #byNamespace = new Map<string, Rank0>()

  private constructor(port: number) {
    this.port = port
    this.#server = createServer((request, response) => {
      const asked = [...this.#byNamespace.values()].find(({ address }) => address === request.socket.localAddress)
      if (asked) asked.hear(request, response)
      else response.writeHead(404).end()
    })
  }

  static async start(): Promise<Ranks> {
    const ranks = new Ranks(await freePort())
    await new Promise<void>(resolve => ranks.#server.listen(ranks.port, '0.0.0.0', resolve))
    return ranks
  }

  of({ name }: Pick<Namespace, 'name'>): Rank0 {
    const known = this.#byNamespace.get(name)
    if (known !== undefined) return known
    const rank = new Rank0(`127.0.1.${this.#byNamespace.size + 1}`)
    this.#byNamespace.set(name, rank)
    return rank
  }

  /** For a Kubelet. */
  addressOf = ({ metadata: { namespace = '' } }: Pod): string => this.of({ name: namespace }).address

  stop(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

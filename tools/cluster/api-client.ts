// A minimal client that waits for an API server and creates its first objects. It reads the
// kubeconfigs that pki.ts writes.

import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ApiObject } from './bootstrap.ts'

export type Answer = { readonly status: number; readonly body: string }

type Kubeconfig = {
  clusters: [{ cluster: { server: string; 'certificate-authority-data': string } }]
  users: [{ user: { 'client-certificate-data': string; 'client-key-data': string } }]
}

const REQUEST_MILLISECONDS = 3000

export class ApiClient {
  readonly server: string
  readonly #agent: Agent

  constructor(kubeconfigPath: string) {
    const config: Kubeconfig = JSON.parse(readFileSync(kubeconfigPath, 'utf8'))
    const { cluster } = config.clusters[0]
    const { user } = config.users[0]
    this.server = cluster.server
    this.#agent = new Agent({
      keepAlive: true,
      ca: decode(cluster['certificate-authority-data']),
      cert: decode(user['client-certificate-data']),
      key: decode(user['client-key-data']),
    })
  }

  /** Sends one request and returns status and body; throws without an answer within 3 s. */
  request(method: 'GET' | 'POST', path: string, body?: unknown): Promise<Answer> {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' }
    return new Promise((resolve, reject) => {
      const outgoing = request(
        new URL(path, this.server),
        { method, headers, agent: this.#agent, timeout: REQUEST_MILLISECONDS },
        response => {
          let text = ''
          response.setEncoding('utf8').on('data', part => {
            text += part
          })
          response.on('error', reject).on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
        },
      )
      outgoing.on('timeout', () =>
        outgoing.destroy(new Error(`${method} ${path}: no answer in ${REQUEST_MILLISECONDS} ms`)),
      )
      outgoing.on('error', reject)
      outgoing.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  /** Whether the server reports that it is ready. */
  async isReady(): Promise<boolean> {
    try {
      return (await this.request('GET', '/readyz')).status === 200
    } catch {
      return false
    }
  }

  /** Creates an object unless it exists. */
  async create(object: ApiObject): Promise<void> {
    const { status, body } = await this.request('POST', object.path, object.body)
    if (status >= 300 && status !== 409) throw new Error(`POST ${object.path}: HTTP ${status}: ${body}`)
  }

  /** Whether the node reports the condition Ready. */
  async isNodeReady(name: string): Promise<boolean> {
    const { status, body } = await this.request('GET', `/api/v1/nodes/${name}`)
    if (status !== 200) return false
    const node: { status?: { conditions?: { type: string; status: string }[] } } = JSON.parse(body)
    return node.status?.conditions?.some(c => c.type === 'Ready' && c.status === 'True') ?? false
  }

  async exists(path: string): Promise<boolean> {
    return (await this.request('GET', path)).status === 200
  }

  close(): void {
    this.#agent.destroy()
  }
}

/** Certificates and keys are base64 in a kubeconfig. */
function decode(data: string): Buffer {
  return Buffer.from(data, 'base64')
}

/**
 * Repeats `check` every 50 ms until it is true; throws an error that names `what` after the time.
 */
export async function waitUntil(what: string, milliseconds: number, check: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + milliseconds
  for (;;) {
    const last = await check().catch((error: unknown) => error)
    if (last === true) return
    if (performance.now() > deadline) {
      const reason = last instanceof Error ? `: ${last.message}` : ''
      throw new Error(`${what}: still not true after ${milliseconds / 1000} s${reason}`)
    }
    await sleep(50)
  }
}

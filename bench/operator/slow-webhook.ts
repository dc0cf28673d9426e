// An admission webhook for the pods of one namespace that takes its time and then fails, or later
// admits.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { join } from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import type { World } from './world.ts'

const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations'

/** The API server, and a folder for the webhook's certificate. */
type Place = Pick<World, 'kube' | 'folder'>

export class SlowWebhook {
  readonly #world: Place
  readonly #server: Server
  readonly #name: string
  /** Number of answers so far. */
  answers = 0
  #admits = false

  private constructor(world: Place, server: Server, name: string) {
    this.#world = world
    this.#server = server
    this.#name = name
  }

  /** An answer comes when what `wait` returns is over. */
  static async start(world: Place, namespace: string, wait: () => Promise<unknown>): Promise<SlowWebhook> {
    const { key, cert } = certificate(join(world.folder, 'webhook'))
    const server = createServer({ key, cert }, (request, response) => {
      void Promise.all([textOf(request), wait()]).then(([text]) => hook.#answer(text, response))
    })
    const hook = new SlowWebhook(world, server, namespace)
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const webhook = {
      name: 'slow.example.com',
      rules: [{ apiGroups: [''], apiVersions: ['v1'], resources: ['pods'], operations: ['CREATE'] }],
      clientConfig: { url: `https://127.0.0.1:${port}/`, caBundle: cert.toString('base64') },
      namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
      sideEffects: 'None',
      admissionReviewVersions: ['v1'],
      timeoutSeconds: 30,
    }
    const body = { metadata: { name: namespace }, webhooks: [webhook] }
    await world.kube.call({ method: 'POST', path: CONFIGURATIONS, body })
    return hook
  }

  /** From now on it admits pods, as slowly as before. */
  admits(): void {
    this.#admits = true
  }

  #answer(text: string, response: ServerResponse): void {
    this.answers++
    if (!this.#admits) return void response.writeHead(500).end('slow')
    const { apiVersion, kind, request }: { apiVersion: string; kind: string; request: { uid: string } } =
      JSON.parse(text)
    const answer = { apiVersion, kind, response: { uid: request.uid, allowed: true } }
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
  }

  async stop(): Promise<void> {
    await this.#world.kube.call({ method: 'DELETE', path: `${CONFIGURATIONS}/${this.#name}` })
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

function certificate(folder: string): { key: Buffer; cert: Buffer } {
  mkdirSync(folder, { recursive: true })
  const [key, cert] = [join(folder, 'tls.key'), join(folder, 'tls.crt')]
  const kind = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
  execFileSync('openssl', [...kind, ...subject, '-keyout', key, '-out', cert], { stdio: 'pipe' })
  return { key: readFileSync(key), cert: readFileSync(cert) }
}

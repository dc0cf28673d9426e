// A real etcd and API server with the CRD, and kubectl to talk to them.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Cluster, up } from '../../../tools/cluster/cluster.ts'
import { binaries } from '../../../tools/cluster/programs/binaries.ts'
import { yamlOf } from './crd-cases.ts'

export interface Answer {
  ok: boolean
  out: string
  error: string
}

export class Server {
  readonly kubeconfig: string
  readonly folder: string
  readonly #cluster: Cluster
  readonly #program: string
  #files = 0

  private constructor(cluster: Cluster, program: string, folder: string) {
    this.#cluster = cluster
    this.#program = program
    this.folder = folder
    this.kubeconfig = cluster.kubeconfig
  }

  /** Starts a server without objects; with `crd` it serves ScMoEJobs. */
  static async start(options: { crd: boolean }): Promise<Server> {
    const folder = mkdtempSync(join(tmpdir(), 'scmoe-crd-'))
    const { kubectl } = await binaries(['kubectl'])
    const server = new Server(
      await up({ mode: 'api', provider: 'embedded', stateDir: join(folder, 'cluster') }),
      kubectl,
      folder,
    )
    if (options.crd) {
      await server.must('apply', '--filename', 'crds/scmoejob.yaml')
      await server.established()
    }
    return server
  }

  /** Waits until the API server serves ScMoEJobs. */
  async established(): Promise<void> {
    for (;;) {
      if ((await this.kubectl('get', 'scmoejobs')).ok) return
      await sleep(50)
    }
  }

  kubectl(...args: string[]): Promise<Answer> {
    return run(this.#program, ['--kubeconfig', this.kubeconfig, ...args])
  }

  /** Runs kubectl and throws if it fails. */
  async must(...args: string[]): Promise<string> {
    const { ok, out, error } = await this.kubectl(...args)
    if (!ok) throw new Error(`kubectl ${args.join(' ')}: ${error}`)
    return out
  }

  /** Creates a job called `name` with these lines below `spec:`. */
  async create(name: string, spec = ''): Promise<void> {
    await this.must('create', '--filename', this.file(yamlOf({ spec, job: name })))
  }

  file(text: string): string {
    const path = join(this.folder, `${++this.#files}.yaml`)
    writeFileSync(path, text)
    return path
  }

  /** The lines with which the API server refuses a file; none if it would take the file. */
  async refusals(text: string): Promise<string[]> {
    const { ok, error } = await this.kubectl('create', '--dry-run=server', '--filename', this.file(text))
    return ok ? [] : refusalLines(error)
  }

  async stop(): Promise<void> {
    await this.#cluster.down()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/**
 * The causes in kubectl's text: lines of the form `* field: message`, the only cause of a short
 * answer, or unknown fields. /
 */
export function refusalLines(error: string): string[] {
  const unknown = error.match(/unknown field "[^"]+"/g)
  if (unknown) return unknown
  const single = /is invalid: (?!\n)(.*)/.exec(error)?.[1]
  const lines = single === undefined ? [...error.matchAll(/^\* (.*)$/gm)].map(match => match[1] ?? '') : [single]
  if (lines.length === 0) throw new Error(`not a refusal: ${error}`)
  return lines.filter(line => !line.startsWith('<nil>: '))
}

export function run(program: string, args: readonly string[]): Promise<Answer> {
  return new Promise(resolve => {
    execFile(program, args, { maxBuffer: 2 ** 26 }, (failure, out, error) =>
      resolve({ ok: failure === null, out, error }),
    )
  })
}

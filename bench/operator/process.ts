// A controller that is measured: a process with its memory, its processor time and its end.

import { type ChildProcess, spawn } from 'node:child_process'
import { openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { endsWithThisProcess } from '../children.ts'

/** USER_HZ of the kernel, which is 100 on every Linux on which this runs. */
const TICKS_PER_SECOND = 100

export class Program {
  readonly child: ChildProcess
  readonly log: string
  readonly #end: Promise<void>

  constructor(
    command: string,
    args: readonly string[],
    { folder, name, env = {} }: { folder: string; name: string; env?: NodeJS.ProcessEnv },
  ) {
    this.log = join(folder, `${name}.log`)
    const output = openSync(this.log, 'a')
    this.child = spawn(command, args, { stdio: ['ignore', output, output], env: { ...process.env, ...env } })
    endsWithThisProcess(this.child)
    this.#end = new Promise(resolve => {
      this.child.once('exit', () => resolve())
    })
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  /** Resident memory. */
  mebibytes(): number {
    const kibibytes = /^VmRSS:\s+(\d+) kB/m.exec(this.#proc('status'))?.[1]
    return Number(kibibytes) / 1024
  }

  processorSeconds(): number {
    const fields = this.#proc('stat')
      .replace(/^.*\) /, '')
      .split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
  }

  text(): string {
    return readFileSync(this.log, 'utf8')
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (!this.ended) this.child.kill(signal)
    await this.#end
  }

  #proc(file: string): string {
    if (this.ended) throw new Error(`the process has ended: ${this.text().slice(-2000)}`)
    return readFileSync(`/proc/${this.child.pid}/${file}`, 'utf8')
  }
}

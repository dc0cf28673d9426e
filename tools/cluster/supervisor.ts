// Keeps programs running. Until the cluster is complete, the end of a program is a failure; after
// that, the program is started again.

import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Component } from './config.ts'

const RESTART_MILLISECONDS = 1000
const TAIL_LINES = 12

/** The end of a log, without blank lines. */
export function tail(log: string, lines = TAIL_LINES): string {
  return log
    .split('\n')
    .filter(line => line.trim() !== '')
    .slice(-lines)
    .join('\n')
}

export class Supervisor {
  /** Rejects when a program ends before `settle`. */
  readonly failure: Promise<never>
  readonly #logs: string
  #fail: (error: Error) => void = () => {}
  #settled = false

  constructor(logs: string) {
    this.#logs = logs
    this.failure = new Promise<never>((_, reject) => {
      this.#fail = reject
    })
    // Callers wait for this promise; without one, its rejection must not end the process.
    this.failure.catch(() => {})
  }

  /** From now on a program that ends is started again after a second. */
  settle(): void {
    this.#settled = true
  }

  /** Starts a program that the kernel ends together with this process. */
  start(component: Component): void {
    const log = this.#log(component.name)
    const output = openSync(log, 'a')
    const command = ['--pdeathsig', 'KILL', '--', ...component.command]
    const child = spawn('setpriv', command, { stdio: ['ignore', output, output], cwd: this.#logs })
    closeSync(output)
    const ended = (how: string): void => {
      if (this.#settled) void this.#restart(component, how)
      else
        this.#fail(
          new Error(`${component.name} ended with ${how}; ${log} ends with:\n${tail(readFileSync(log, 'utf8'))}`),
        )
    }
    child.once('error', error => ended(error.message))
    child.once('exit', (code, signal) => ended(signal ?? `exit code ${code}`))
  }

  async #restart(component: Component, how: string): Promise<void> {
    console.error(`${new Date().toISOString()} ${component.name} ended with ${how}; starting it again`)
    await sleep(RESTART_MILLISECONDS)
    this.start(component)
  }

  #log(name: string): string {
    return join(this.#logs, `${name}.log`)
  }
}

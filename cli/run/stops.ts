// The signals that ask `scmoe run` to stop. The first one asks for a checkpoint at the next step
// boundary, the second one for an end at once.

import { constants } from 'node:os'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
export type StopSignal = (typeof SIGNALS)[number]

/** The exit code of a process that the signal ended, as shells count. */
export const exitCodeOf = (signal: StopSignal): number => 128 + constants.signals[signal]

export interface Request {
  signal: StopSignal
  /** Whether a signal came before, so that the process ends at once. */
  again: boolean
}

/** Takes the signals from its creation until `close`. */
export class Stops {
  readonly #receive: (signal: NodeJS.Signals) => void
  readonly #listeners = new Set<(request: Request) => void>()
  #request: Request | undefined

  constructor() {
    this.#receive = received => {
      const signal = SIGNALS.find(each => each === received)
      if (signal === undefined) return
      this.#request = { signal: this.#request?.signal ?? signal, again: this.#request !== undefined }
      for (const listener of this.#listeners) listener(this.#request)
    }
    for (const signal of SIGNALS) process.on(signal, this.#receive)
  }

  /** The first signal so far, and whether another one followed. */
  get request(): Request | undefined {
    return this.#request
  }

  /** Calls `listener` for each signal, also for one that has come already. */
  listen(listener: (request: Request) => void): void {
    this.#listeners.add(listener)
    if (this.#request !== undefined) listener(this.#request)
  }

  close(): void {
    for (const signal of SIGNALS) process.off(signal, this.#receive)
    this.#listeners.clear()
  }
}

/** A signal ended the command before it had a result. */
export class Interrupted extends Error {
  override name = 'Interrupted'
  readonly exitCode: number

  constructor(signal: StopSignal) {
    super(`stopped by ${signal}, without a result`)
    this.exitCode = exitCodeOf(signal)
  }
}

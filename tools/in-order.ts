// Orders the output of work that runs in parallel as if it had run one after another.

export interface Writer {
  /** Whether written text is shown at once. */
  readonly isShown: boolean
  write(text: string): void
  close(): void
}

/**
 * Shows the text of the first open writer at once, and keeps the text of the others until their
 * turn. Writers have their turn in the order in which they were created.
 */
export class InOrder {
  readonly #out: (text: string) => void
  #waiting: { kept: string[]; open: boolean }[] = []

  constructor(out: (text: string) => void) {
    this.#out = out
  }

  writer(): Writer {
    const own = { kept: [] as string[], open: true }
    this.#waiting.push(own)
    const isShown = () => this.#waiting[0] === own
    return {
      get isShown() {
        return isShown()
      },
      write: text => {
        if (isShown()) this.#out(text)
        else own.kept.push(text)
      },
      close: () => {
        own.open = false
        this.#advance()
      },
    }
  }

  #advance(): void {
    while (this.#waiting[0]?.open === false) {
      this.#waiting.shift()
      for (const text of this.#waiting[0]?.kept.splice(0) ?? []) this.#out(text)
    }
  }
}

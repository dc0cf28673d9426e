// Output of work that goes on side by side, as if it had been done one after another.

export interface Writer {
  /** What is written gets out at once. */
  readonly isShown: boolean
  write(text: string): void
  close(): void
}

/** What the first open writer writes gets out at once; of the others it is kept until their turn, which is the order in which they were made. */
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

// Shows the progress of a run while it trains.

import { styleText } from 'node:util'
import { createLogUpdate } from 'log-update'
import { Progress, plainText } from '../../crds/contract.ts'
import { duration, nats } from '../sentence.ts'

const LINE_EVERY_MILLISECONDS = 5000
const ASK_EVERY_MILLISECONDS = 500

/** Asks rank 0 how far it is, again and again; returns what ends this. */
export function watchProgress(port: number, show: (progress: Progress) => void): () => void {
  let stopped = false
  const ask = async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/progress`, { signal: AbortSignal.timeout(2000) })
    const parsed = Progress.safeParse(await answer.json())
    if (parsed.success && !stopped) show(parsed.data)
  }
  // Requests fail before rank 0 listens and after it has ended; then there is nothing to show.
  const timer = setInterval(() => void ask().catch(() => undefined), ASK_EVERY_MILLISECONDS)
  return () => {
    stopped = true
    clearInterval(timer)
  }
}

/** One line that is updated on a terminal, or a line every few seconds. */
export class LiveView {
  readonly #name: string
  readonly #mode: 'terminal' | 'lines' | 'silent'
  readonly #update = createLogUpdate(process.stdout)
  #lastLine = 0

  constructor(name: string, mode: 'terminal' | 'lines' | 'silent') {
    this.#name = name
    this.#mode = mode
  }

  show(progress: Progress): void {
    if (progress.step === 0 && this.#mode !== 'terminal') return
    if (this.#mode === 'terminal') this.#update(`${styleText('bold', this.#name)}  ${progressLine(progress)}`)
    else if (this.#mode === 'lines' && Date.now() - this.#lastLine >= LINE_EVERY_MILLISECONDS) {
      this.#lastLine = Date.now()
      console.log(`${this.#name}  ${progressLine(progress)}`)
    }
  }

  note(text: string): void {
    if (this.#mode === 'terminal') this.#update.clear()
    console.error(text)
  }

  close(): void {
    if (this.#mode === 'terminal') this.#update.done()
  }
}

export function progressLine(progress: Progress): string {
  const { step, totalSteps, lossMilli, evaluationLossMilli, evaluationStep, tokensPerSecond, overlapPercent } = progress
  const parts = [
    `step ${step}/${totalSteps}`,
    lossMilli !== undefined && `loss ${nats(lossMilli)}`,
    evaluationLossMilli !== undefined &&
      `evaluation ${nats(evaluationLossMilli)}${evaluationStep === step ? '' : ` at step ${evaluationStep ?? '?'}`}`,
    tokensPerSecond !== undefined && `${tokensPerSecond} tokens/s`,
    overlapPercent !== undefined && `overlap ${overlapPercent} %`,
    progress.schedule,
    progress.estimatedRemainingSeconds !== undefined && `${duration(progress.estimatedRemainingSeconds)} left`,
  ]
  return plainText(parts.filter(Boolean).join('  '))
}

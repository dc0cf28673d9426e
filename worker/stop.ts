// Being told to stop: the first SIGTERM or SIGINT asks for a checkpoint after the current step, the second ends the process at once.

export interface Stop {
  readonly signal: AbortSignal
  readonly requested: boolean
}

export function onStopSignals(abort: () => void, note: (signal: string, again: boolean) => void): Stop {
  const controller = new AbortController()
  const receive = (signal: string) => {
    const again = controller.signal.aborted
    note(signal, again)
    if (again) abort()
    else controller.abort()
  }
  process.on('SIGTERM', receive)
  process.on('SIGINT', receive)
  return {
    signal: controller.signal,
    get requested() {
      return controller.signal.aborted
    },
  }
}

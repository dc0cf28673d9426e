// How a worker is told to stop: the first SIGTERM or SIGINT asks for a checkpoint after the current
// step, the second one ends the process at once.

/** The signal that is aborted by the first request. `abort` is called at the second one. */
export function onStopSignals(abort: () => void, note: (signal: string, again: boolean) => void): AbortSignal {
  const controller = new AbortController()
  const receive = (signal: string) => {
    const again = controller.signal.aborted
    note(signal, again)
    if (again) abort()
    else controller.abort()
  }
  process.on('SIGTERM', receive)
  process.on('SIGINT', receive)
  return controller.signal
}

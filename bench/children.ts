// Child processes of a benchmark, which end with it however it ends.

import type { ChildProcess } from 'node:child_process'

const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(130))

/** Kills the child when this process exits. */
export function endsWithThisProcess(child: ChildProcess): void {
  living.add(child)
  child.once('exit', () => living.delete(child))
}

// Programs and libraries of worker/native for tests. A folder under build/ for each way of building them, which tests share; cheap when nothing changed.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '../..')

/** For a hook or test that builds: cold, with sanitizers, it compiles every kernel three times. */
export const BUILD_DEADLINE = 900_000

/** Builds with the settings of cmake that this folder always has; returns the folder. Throws with what the compiler said. */
export function build(folder: string, targets: readonly string[], settings: readonly string[] = []): string {
  const path = join(ROOT, 'build', folder)
  run('cmake', '-S', 'worker/native', '-B', path, '-G', 'Ninja', ...settings)
  run('ninja', '-C', path, '-j2', ...targets)
  return path
}

function run(command: string, ...words: string[]): void {
  try {
    execFileSync(command, words, { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' })
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${[command, ...words].join(' ')}:\n${`${stdout}${stderr}`.slice(-8000)}`, { cause: error })
  }
}

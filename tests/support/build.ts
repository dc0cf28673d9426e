// Builds programs and libraries of worker/native for tests. Each set of build settings has a folder
// under build/, which tests share. A build is cheap when nothing has changed.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '../..')

/**
 * Timeout in milliseconds of a hook or test that builds. A first build compiles every kernel three
 * times.
 */
export const BUILD_DEADLINE = 900_000

/**
 * Builds `targets` in the folder build/`folder`, always with the same settings of cmake, and
 * returns its path. Throws with the output of the compiler.
 */
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

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../../..')

const run = (command: string, args: string[]): string =>
  execFileSync(command, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })

/** Builds the engine's C++ tests with these sanitizers, in a folder of their own, and runs them; a finding ends them with an error. */
function engineTest(folder: string, sanitizers: string): string {
  run('cmake', ['-S', 'worker/native', '-B', folder, '-G', 'Ninja', `-DSCMOE_SANITIZE=${sanitizers}`])
  run('ninja', ['-j2', '-C', folder, 'engine_test'])
  return run(join(root, folder, 'engine_test'), [])
}

describe('the engine, several ranks in one process over loopback', () => {
  it.each([
    ['does what its C++ tests say', 'build/native', ''],
    ['has no data race', 'build/native-thread', 'thread'],
    ['has no memory error and no undefined behaviour', 'build/native-address', 'address,undefined'],
  ])('%s', { timeout: 900_000 }, (_, folder, sanitizers) => {
    expect(engineTest(folder, sanitizers)).toMatch(/[1-9]\d* tests, 0 failed/)
  })
})

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { BUILD_DEADLINE, build } from '../../support/build.ts'

/**
 * Builds the engine's C++ tests with these sanitizers, in a folder of their own, and runs them. A
 * finding of a sanitizer ends them with an error.
 */
function engineTest(folder: string, sanitizers: string): string {
  const path = build(folder, ['engine_test'], [`-DSCMOE_SANITIZE=${sanitizers}`])
  return execFileSync(join(path, 'engine_test'), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

describe('the engine, several ranks in one process over loopback', () => {
  it.each([
    ['does what its C++ tests say', 'native', ''],
    ['has no data race', 'native-thread', 'thread'],
    ['has no memory error and no undefined behaviour', 'native-address', 'address,undefined'],
  ])('%s', { timeout: BUILD_DEADLINE }, (_, folder, sanitizers) => {
    expect(engineTest(folder, sanitizers)).toMatch(/[1-9]\d* tests, 0 failed/)
  })
})

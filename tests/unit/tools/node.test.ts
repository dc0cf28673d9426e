// Tests that all places agree about the Node that a user needs.

import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import packageFile from '../../../package.json' with { type: 'json' }
import lockfile from '../../../package-lock.json' with { type: 'json' }

const OLDEST = 20

// Seen failing when package.json asked for 22.19 and everything else for 20. The Node that npm ci
// installs runs everything, so the system's Node need only run npm.
it('README, CONTRIBUTING, package.json, its lockfile and the bootstrap script name the same oldest Node', () => {
  for (const path of ['README.md', 'CONTRIBUTING.md', 'tools/bootstrap.sh']) {
    const named = [...readFileSync(path, 'utf8').matchAll(/Node[\s#]*>=[\s#]*(\d+)/g)].map(([, version]) => version)
    expect({ path, named: new Set(named) }).toEqual({ path, named: new Set([String(OLDEST)]) })
  }
  expect(readFileSync('tools/bootstrap.sh', 'utf8')).toContain(`-ge ${OLDEST} ]`)
  expect(packageFile.engines.node).toBe(`>=${OLDEST}`)
  expect(lockfile.packages[''].engines.node).toBe(`>=${OLDEST}`)
})

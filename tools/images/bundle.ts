// Bundles each program into one file, so that images need no node_modules.

import { join } from 'node:path'
import { build } from 'esbuild'
import { packageOf } from './parts.ts'

/** Defines `require`, which CommonJS dependencies call and ES modules lack. */
const BANNER =
  "import { createRequire as makeRequire } from 'node:module'\nconst require = makeRequire(import.meta.url)"

const ENTRIES = { operator: 'operator/main.ts', follow: 'operator/follow.ts', worker: 'worker/main.ts' } as const
export type Program = keyof typeof ENTRIES

export type Bundle = {
  readonly path: string
  /** The folders of the npm packages in it. */
  readonly packages: readonly string[]
}

/** Bundles a program of this checkout into `<folder>/<program>.mjs`. */
export async function bundle(
  root: string,
  program: Program,
  folder: string = join(root, 'build', 'bundle'),
): Promise<Bundle> {
  const outfile = join(folder, `${program}.mjs`)
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [join(root, ENTRIES[program])],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    banner: { js: BANNER },
    metafile: true,
    sourcemap: false,
    // The notices of a package are in the file beside the bundle.
    legalComments: 'none',
    logLevel: 'error',
  })
  const packages = Object.keys(metafile.inputs).flatMap(source => packageOf(root, source) ?? [])
  return { path: outfile, packages: [...new Set(packages)].toSorted() }
}

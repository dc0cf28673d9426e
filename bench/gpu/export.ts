// Writes the files that bench/gpu/run.sh executes, for a machine with a GPU but without Node:
//
//   node bench/gpu/export.ts [--out build/gpu]

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { catalogue } from './catalogue.ts'

const { values: options } = parseArgs({ options: { out: { type: 'string', default: 'build/gpu' } } })
mkdirSync(options.out, { recursive: true })

for (const [name, { file }] of catalogue()) {
  const path = join(options.out, `${name}.json`)
  writeFileSync(path, JSON.stringify(file))
  console.log(`${path}: ${file.title}`)
}

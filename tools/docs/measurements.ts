// npm run docs:measurements: writes the JSON files of benchmarks as pages of raw tables,
// docs/measurements/DATE-name.md.
//
//   node tools/docs/measurements.ts FILE.json... [--name NAME] [--output FOLDER]
//
// A FILE is what a benchmark wrote with --json. --name replaces the name of the benchmark in the
// file name and the title, so that two files of one benchmark and day can stand beside each other.

import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { measurementPage } from './measurement-page.ts'

const FOLDER = join(import.meta.dirname, '../../docs/measurements')
const Result = z.record(z.string(), z.unknown())
const Known = z.looseObject({ bench: z.string().optional(), date: z.string().optional() })

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { name: { type: 'string' }, output: { type: 'string', default: FOLDER } },
  })
  if (positionals.length === 0) throw new Error('give at least one JSON file that a benchmark wrote with --json')
  if (positionals.length > 1 && values.name !== undefined) throw new Error('--name is for one file')
  mkdirSync(values.output, { recursive: true })
  for (const file of positionals) {
    const result = Result.parse(JSON.parse(readFileSync(file, 'utf8')))
    const { bench = basename(file, '.json'), date = dayOf(statSync(file).mtime) } = Known.parse(result)
    const name = values.name ?? bench
    const path = join(values.output, `${dayOf(new Date(date))}-${name}.md`)
    writeFileSync(path, measurementPage(name, { ...result, date }))
    console.log(path)
  }
}

const dayOf = (date: Date) => date.toISOString().slice(0, 10)

try {
  main()
} catch (error) {
  console.error(`docs:measurements: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}

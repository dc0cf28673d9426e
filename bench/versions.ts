// npm run bench:versions: compares two checkouts by running the same benchmark in both in turns on
// one machine. Prints the ratio of each figure, new over old, with its 95 % interval.
// bench/README.md explains the figures.
//
//   node bench/versions.ts --old FOLDER [--pairs N] [--figures PATTERN] [--json FILE]
//                          -- BENCHMARK [OPTION...]
//
// FOLDER is a built checkout of the older version, for example a git worktree. BENCHMARK is a path
// in both checkouts, such as bench/step.ts.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { fixed, machine, table, writeJson } from './report.ts'
import { sentenceOf, Watch } from './turns/watch.ts'
import { figuresOf, figuresOfRatios, isSlower, type Pair, ratiosOf } from './versions/ratios.ts'

const ROOT = join(import.meta.dirname, '..')

const { values: options, positionals } = parseArgs({
  options: {
    old: { type: 'string' },
    pairs: { type: 'string', default: '5' },
    figures: { type: 'string', default: 'tokensPerSecond|podsPerSecond' },
    json: { type: 'string' },
  },
  allowPositionals: true,
})
const [benchmark, ...words] = positionals
if (options.old === undefined || benchmark === undefined) {
  console.error('usage: node bench/versions.ts --old FOLDER [--pairs N] [--figures PATTERN] -- BENCHMARK [OPTION...]')
  process.exit(64)
}
const older = resolve(options.old)
const pattern = new RegExp(options.figures, 'i')
const scratch = mkdtempSync(join(tmpdir(), 'scmoe-versions-'))

/** Runs the benchmark in one checkout and returns its figures by name. */
function run(folder: string): Map<string, number> {
  const file = join(scratch, 'figures.json')
  const command = [join(folder, benchmark ?? ''), ...words, '--json', file]
  const { status, stderr, error } = spawnSync(join(folder, 'node_modules/.bin/node'), command, {
    cwd: folder,
    encoding: 'utf8',
  })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`${benchmark} in ${folder} ended with ${status}:\n${stderr.slice(-2000)}`)
  return figuresOf(JSON.parse(readFileSync(file, 'utf8')), pattern)
}

const pairs: Pair[] = []
const watch = new Watch()
try {
  for (let pair = 0; pair < Number(options.pairs); pair++) {
    // Every second pair runs in the other order, so that a drift of the machine favours neither.
    const order = pair % 2 === 0 ? ([older, ROOT] as const) : ([ROOT, older] as const)
    const [first, second] = await watch.turn(() => Promise.resolve(order.map(folder => run(folder))))
    if (first === undefined || second === undefined) throw new Error('a pair has two runs')
    pairs.push(pair % 2 === 0 ? { before: first, after: second } : { before: second, after: first })
    console.error(`pair ${pair + 1} of ${options.pairs}`)
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

const ratios = ratiosOf(pairs)
console.log(`${machine()}\n${benchmark} ${words.join(' ')}, ${pairs.length} pairs, new over old\n`)
console.log(
  table(
    ['figure', 'old', 'new', 'new / old', 'from', 'to', ''],
    ratios.map(ratio => [
      ratio.name,
      fixed(ratio.before, 1),
      fixed(ratio.after, 1),
      fixed(ratio.ratio, 3),
      fixed(ratio.low, 3),
      fixed(ratio.high, 3),
      isSlower(ratio) ? 'SLOWER' : '',
    ]),
  ),
)
console.log(`\n${sentenceOf(watch.disturbance)}`)
writeJson(options.json, {
  bench: 'versions',
  machine: machine(),
  benchmark: [benchmark, ...words].join(' '),
  pairs: pairs.length,
  disturbance: watch.disturbance,
  figures: figuresOfRatios(ratios),
  ratios,
})
if (ratios.some(isSlower)) process.exitCode = 1

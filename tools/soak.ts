// npm run soak: the long form of every test that has one. Such a test reads SCMOE_SOAK and then
// tries more cases, kills more often or runs longer. It takes hours, so `npm test` does not run it.
//   node tools/soak.ts [WORD...]      only files with one of these words in their path
//   --list                            list the files

import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const VARIABLE = 'SCMOE_SOAK'

/** The test files that have a long form. */
function soakFiles(): string[] {
  const files = globSync('tests/**/*.test.ts', { cwd: root }).toSorted()
  return files.filter(file => readFileSync(`${root}${file}`, 'utf8').includes(VARIABLE))
}

function main(words: readonly string[]): number {
  const wanted = words.filter(word => !word.startsWith('--'))
  const files = soakFiles().filter(file => wanted.length === 0 || wanted.some(word => file.includes(word)))
  if (words.includes('--list')) {
    console.log(files.join('\n'))
    return 0
  }
  if (files.length === 0) {
    console.error(`no test with a long form has ${wanted.join(' or ')} in its path; --list lists them`)
    return 2
  }
  // One file at a time, because a failure is looked into with its seed and without other load.
  const env = { ...process.env, [VARIABLE]: '1' }
  const { status } = spawnSync('vitest', ['run', '--no-file-parallelism', ...files], {
    cwd: root,
    env,
    stdio: 'inherit',
  })
  return status ?? 1
}

process.exitCode = main(process.argv.slice(2))

// Tests of what pages refer to: links lead to files that exist, and commands are commands of
// package.json.

import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, it } from 'vitest'

const root = join(import.meta.dirname, '../../..')
const pages = globSync(['*.md', '{docs,bench,examples}/**/*.md'], { cwd: root })
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const matches = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map(match => match[1] ?? '')

// Seen failing with a measurement under another date, and with a picture that was never drawn.
it('links of pages lead to files and folders that exist', () => {
  expect(pages).toContain('README.md')
  const broken = pages.flatMap(page =>
    matches(read(page), /\]\(([^)#\s]+)[^)]*\)/g)
      .filter(target => !/^[a-z]+:/.test(target))
      .filter(target => !existsSync(join(root, dirname(page), target)))
      .map(target => `${page}: ${target}`),
  )
  expect(broken).toEqual([])
})

// Seen failing with `npm run docs:lane`.
it('commands that pages name are in package.json', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  const named = pages.flatMap(page => matches(read(page), /npm run ([\w:-]+)/g))
  expect(named).toContain('build')
  expect(named.filter(name => !Object.hasOwn(scripts, name))).toEqual([])
})

// Comments and pages are sentences of ordinary words that fit a screen. A reader judges the
// English; these tests keep what a program can see.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { comments, problems, uncommonIn, userTexts, writtenFiles } from '../../support/english.ts'

const read = (path: string) => readFileSync(path, 'utf8')

describe('comments and pages', () => {
  it('are at most 100 columns wide, never begin with a fragment, and use ordinary words', () => {
    expect(writtenFiles().flatMap(path => problems(path, read(path)))).toEqual([])
  })

  it('are found in every language of the tree', () => {
    const found = (path: string, source: string) => comments(path, source).map(({ text }) => text)
    expect(found('a.ts', "const a = 'http://b' // one\n/** two */\n/*\n * three\n */\n")).toEqual([
      'one',
      'two',
      'three',
    ])
    expect(found('a.ts', '// one\n// two\n\n// three\n')).toEqual(['one two', 'three'])
    expect(found('a.sh', '#!/bin/sh\n# one\necho "# no"\n')).toEqual(['one'])
  })

  it('are refused when they are wide, begin with a fragment, or use a word of our own', () => {
    const problemsOf = (text: string) => problems('a.ts', `${text}\n`).length
    expect(problemsOf('// The pod is ready.')).toBe(0)
    expect(problemsOf('// Of the pod.')).toBe(1)
    expect(problemsOf('// The pod.\n//\n// Of the pod.')).toBe(1)
    expect(problemsOf('// The conditions\n// Of the pod.')).toBe(0)
    expect(problemsOf('// The pod is a ghost.')).toBe(1)
    expect(problemsOf(`// ${'a '.repeat(60)}`)).toBe(1)
    expect(problems('a.md', `${'a '.repeat(60)}\n`).length).toBe(1)
    expect(problems('a.md', `| ${'a '.repeat(60)} |\n`).length).toBe(0)
  })
})

describe('texts that a user reads', () => {
  it('use ordinary words', () => {
    const files = writtenFiles('crds', 'operator', 'worker', 'cli', 'charts', 'tools').filter(path =>
      path.endsWith('.ts'),
    )
    const found = files.flatMap(path =>
      userTexts(read(path))
        .filter(({ text }) => uncommonIn(text) !== undefined)
        .map(({ line, text }) => `${path}:${line}: ${text}`),
    )
    expect(found).toEqual([])
    expect(userTexts("const a = 'two words'\n").map(({ text }) => text)).toEqual(['two words'])
  })
})

// The repository's own source files as a graph: who imports, includes or starts whom. Folders are
// the import rule, and ARCHITECTURE.md states that rule in blocks that `allowedImports` reads.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'

export interface Source {
  path: string
  text: string
  /** Files of this repository that the file imports or includes, also for types alone. */
  imports: string[]
  /** Files of this repository that the file names by a path string, to start or to bundle them. */
  starts: string[]
  /** Packages, `node:` modules and system headers. */
  foreign: string[]
}

const SPECIFIER = /(?:\bfrom|\bimport\s*\(|^import)\s*['"]([^'"]+)['"]/gm
const INCLUDE = /^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm

/** Folders that an `#include "x.h"` is looked up in after the including file's own folder. */
const INCLUDE_FOLDERS = [
  'worker/native',
  'tests/native/ops',
  'tests/native/engine',
  'tests/native/cuda/emulator',
  'tests/native/standin',
]

export const tracked: readonly string[] = execFileSync(
  'git',
  ['ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate'],
  { encoding: 'utf8' },
)
  .trim()
  .split('\n')
const known = new Set(tracked)

function loadTypeScript(path: string): Source {
  const text = readFileSync(path, 'utf8')
  const specifiers = [...text.matchAll(SPECIFIER)].map(match => match[1] ?? '')
  const own = specifiers.filter(name => name.startsWith('.')).map(name => normalize(join(dirname(path), name)))
  const named = [...text.matchAll(/['"`]((?:\.{0,2}\/)?[\w./-]+\.ts)['"`]/g)].flatMap(([, name = '']) => {
    const targets = name.startsWith('.') || !name.includes('/') ? [normalize(join(dirname(path), name))] : [name]
    return targets.filter(target => known.has(target) && target !== path)
  })
  return {
    path,
    text,
    imports: own,
    starts: [...new Set(named)].filter(target => !own.includes(target)),
    foreign: specifiers.filter(name => !name.startsWith('.')),
  }
}

function loadNative(path: string): Source {
  const text = readFileSync(path, 'utf8')
  const imports: string[] = []
  const foreign: string[] = []
  for (const [, mark, name = ''] of text.matchAll(INCLUDE)) {
    const places = [dirname(path), ...INCLUDE_FOLDERS].map(folder => normalize(join(folder, name)))
    const found = mark === '"' ? places.find(place => known.has(place)) : undefined
    if (found === undefined) foreign.push(name)
    else imports.push(found)
  }
  return { path, text, imports, starts: [], foreign }
}

const all = (pattern: RegExp, load: (path: string) => Source): Map<string, Source> =>
  new Map(tracked.filter(path => pattern.test(path)).map(path => [path, load(path)]))

export const typescript = all(/^(crds|operator|worker|cli|tools|bench|tests)\/.*\.ts$/, loadTypeScript)
export const native = all(/^(worker|tests)\/.*\.(h|cc|cu|cuh)$/, loadNative)

export interface Rule {
  /** Folders, single files (names with a dot), or `*` for everything. */
  imports: ReadonlySet<string>
  starts: ReadonlySet<string>
}

/**
 * The rules of ARCHITECTURE.md by folder. A line is `folder -> imported, ...; starts started, ...`.
 * The second block of the page names parts of worker/native.
 */
export function rulesOf(page: string): Map<string, Rule> {
  const section = page.split('## Who may import whom')[1]?.split('\n## ')[0] ?? ''
  const [typescriptPart = '', nativePart = ''] = section.split('The native engine has the same rule')
  return new Map([...rulesIn(typescriptPart, ''), ...rulesIn(nativePart, 'worker/native/')])
}

function rulesIn(text: string, prefix: string): [string, Rule][] {
  const place = (name: string) => (name.startsWith('worker/native') || name === '*' ? name : `${prefix}${name}`)
  const names = (list: string) =>
    new Set(
      list
        .split(/, */)
        .filter(name => name !== '' && name !== 'nothing')
        .map(place),
    )
  return [...text.matchAll(/^ {4}([\w./]+) +-> +(\S.*)$/gm)].map(([, folder = '', right = '']) => {
    const [imported = '', started = ''] = right.split(/; *starts /)
    return [place(folder), { imports: names(imported), starts: names(started) }]
  })
}

/**
 * The folder among `folders` that a file belongs to: the longest that it lies below. A part of the
 * native engine may also be a header with its source, such as `worker/native/interrupt`.
 */
export function folderOf(path: string, folders: Iterable<string>): string | undefined {
  const isNative = path.startsWith('worker/native/')
  return [...folders]
    .filter(folder => path === folder || path.startsWith(`${folder}/`) || (isNative && path.startsWith(`${folder}.`)))
    .toSorted((a, b) => b.length - a.length)[0]
}

/** Groups of files that import each other in a circle. */
export function circles(files: ReadonlyMap<string, Source>): string[][] {
  const reach = (from: string): Set<string> => {
    const seen = new Set<string>()
    const open = [from]
    for (let path = open.pop(); path !== undefined; path = open.pop())
      for (const next of files.get(path)?.imports ?? [])
        if (!seen.has(next)) {
          seen.add(next)
          open.push(next)
        }
    return seen
  }
  const reached = new Map([...files.keys()].map(path => [path, reach(path)]))
  const inCircle = [...files.keys()].filter(path => reached.get(path)?.has(path))
  const groups = new Map(
    inCircle.map(path => {
      const group = inCircle.filter(other => reached.get(path)?.has(other) && reached.get(other)?.has(path))
      return [group.join(), group]
    }),
  )
  return [...groups.values()]
}

/** The longest way along imports that never leaves the folder. There must be no circle in it. */
export function longestChain(folder: string, files: ReadonlyMap<string, Source>): string[] {
  const longest = new Map<string, string[]>()
  const from = (path: string): string[] => {
    const before = longest.get(path)
    if (before !== undefined) return before
    longest.set(path, [path])
    const next = (files.get(path)?.imports ?? []).filter(other => dirname(other) === folder).map(from)
    const chain = [path, ...(next.toSorted((a, b) => b.length - a.length)[0] ?? [])]
    longest.set(path, chain)
    return chain
  }
  return [...files.keys()]
    .filter(path => dirname(path) === folder)
    .map(from)
    .reduce((a, b) => (b.length > a.length ? b : a), [])
}

/**
 * Lines of every function of a formatted source file. A function begins at a line that opens a
 * brace after a parameter list or an arrow. It ends at the next line of the same indentation that
 * begins with a closing brace.
 */
export function functionLengths(text: string): number[] {
  const lines = text.split('\n')
  const isHead = (line: string) =>
    /(\)[^()=;]*|=>) \{$/.test(line) &&
    !/^\s*(\} )?(if|else|for|while|switch|catch|try|do|namespace|class|struct)\b/.test(line)
  return lines.flatMap((line, start) => {
    if (!isHead(line)) return []
    const indent = /^\s*/.exec(line)?.[0] ?? ''
    const end = lines.findIndex((other, index) => index > start && other.startsWith(`${indent}}`))
    return end < 0 ? [] : [end - start + 1]
  })
}

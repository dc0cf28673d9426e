// Finds comments and prose that break the rules of AGENTS.md: too wide, or begun with a fragment.
// `node tests/support/english.ts [PATH...]` prints what is wrong below the given paths.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

export const WIDTH = 100

/** A fragment such as "Of the pod." has no subject; a paragraph that begins like this is one. */
const FRAGMENT = /^ ?(Of|What|Where|Whoever|Those|Such)\b/m

/** A linter takes a directive only on one line. */
const DIRECTIVE = /oxlint-disable/

/** Words that a reader has to look up, or that this project once used for something of its own. */
const UNCOMMON = /\b(dear(er|est)?|blows?|ghosts?|haunted|whoever|whomever|whatsoever|thereof|lest|as for)\b/i

export interface Comment {
  /** From 1. */
  line: number
  /** Without comment marks; lines are joined by spaces, and paragraphs by line ends. */
  text: string
  /** Columns of its widest line, code before it included. */
  width: number
}

const slashes = /\.(ts|cc|h|cu|cuh|c|go|mjs)$/
const hashes = /(\.(sh|py|yaml|yml|tpl)|CMakeLists\.txt|Dockerfile(\.dockerignore)?)$/

/** Blanks strings, so that what looks like a comment in one is none. Lengths are kept. */
const withoutStrings = (line: string): string =>
  line.replaceAll(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\\n]|\\.)*`/g, text => '_'.repeat(text.length))

/** Comments of a source file; consecutive lines of `//` or `#` are one. */
export function comments(path: string, source: string): Comment[] {
  const mark = slashes.test(path) ? '//' : '#'
  const found: Comment[] = []
  let open: Comment | undefined
  let inBlock = false
  for (const [index, raw] of source.split('\n').entries()) {
    const line: string = mark === '//' && !inBlock ? withoutStrings(raw) : raw
    const begin = inBlock ? 0 : beginOf(line, mark)
    if (begin < 0) {
      open = undefined
      continue
    }
    const isWholeLine = raw.slice(0, begin).trim() === ''
    const text = raw
      .slice(begin)
      .replace(/^\s*(\/\*\*?|\*\/|\*|\/\/+|#+)?\s?/, '')
      .replace(/\s*\*\/\s*$/, '')
    if (open === undefined || !isWholeLine || raw.slice(begin).trim().startsWith('/*')) {
      open = { line: index + 1, text: text.trim(), width: raw.length }
      found.push(open)
    } else {
      open.text = text.trim() === '' ? `${open.text}\n` : `${open.text} ${text.trim()}`.trimStart()
      open.width = Math.max(open.width, raw.length)
    }
    if (mark === '//') inBlock = inBlock ? !raw.includes('*/') : /\/\*(?!.*\*\/)/.test(line)
    if (!isWholeLine) open = undefined
  }
  return found.map(comment => ({ ...comment, text: comment.text.trim() }))
}

function beginOf(line: string, mark: string): number {
  if (mark === '#') return /^\s*#/.test(line) && !line.startsWith('#!') ? line.indexOf('#') : -1
  const places = ['//', '/*'].map(each => line.indexOf(each)).filter(place => place >= 0)
  return places.length === 0 ? -1 : Math.min(...places)
}

/** `path:line: problem` for every comment of a source file that breaks a rule. */
export function problems(path: string, source: string): string[] {
  if (path.endsWith('.md')) return proseProblems(path, source)
  if (!slashes.test(path) && !hashes.test(path)) return []
  return comments(path, source).flatMap(({ line, text, width }) => [
    ...(width > WIDTH && !DIRECTIVE.test(text) ? [`${path}:${line}: ${width} columns`] : []),
    ...(FRAGMENT.test(text) ? [`${path}:${line}: begins with a fragment: ${text.slice(0, 60)}`] : []),
    ...(UNCOMMON.test(text) ? [`${path}:${line}: uncommon word ${UNCOMMON.exec(text)?.[0]}`] : []),
  ])
}

/** Prose of a page. Tables, code and headings are as wide as they have to be. */
function proseProblems(path: string, source: string): string[] {
  if (source.startsWith('<!-- Written by `npm run')) return []
  let inCode = false
  return source.split('\n').flatMap((text, index) => {
    if (text.startsWith('```')) inCode = !inCode
    if (inCode || /^(\||#|```| {4})/.test(text)) return []
    const at = `${path}:${index + 1}`
    // A line that is one long link cannot be broken.
    const isTooWide = text.length > WIDTH && text.trim().includes(' ')
    return [
      ...(isTooWide ? [`${at}: ${text.length} columns`] : []),
      ...(UNCOMMON.test(text) ? [`${at}: uncommon word ${UNCOMMON.exec(text)?.[0]}`] : []),
    ]
  })
}

/** String literals with a space in them: texts that a user may read, with their lines. */
export function userTexts(source: string): { line: number; text: string }[] {
  return source.split('\n').flatMap((raw, index) =>
    /^\s*(\/\/|\*|\/\*)/.test(raw)
      ? []
      : [...raw.matchAll(/'((?:[^'\\\n]|\\.)* (?:[^'\\\n]|\\.)*)'|`((?:[^`\\\n]|\\.)* (?:[^`\\\n]|\\.)*)`/g)].map(
          match => ({
            line: index + 1,
            text: match[1] ?? match[2] ?? '',
          }),
        ),
  )
}

export const uncommonIn = (text: string): string | undefined => UNCOMMON.exec(text)?.[0]

/** Tracked files below the given paths that are written by hand. */
export function writtenFiles(...paths: string[]): string[] {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...paths], {
    encoding: 'utf8',
  })
  return listed
    .split('\n')
    .filter(
      path =>
        path !== '' &&
        !/generated|package-lock|go\.sum|^docs\/(api|chart|cli)\.md$|^crds\/scmoejob\.yaml$|^LICENSE$/.test(path),
    )
}

if (import.meta.main) {
  const files = writtenFiles(...process.argv.slice(2))
  const found = files.flatMap(path => problems(path, readFileSync(path, 'utf8')))
  console.log([...found, `${found.length} in ${files.length} files`].join('\n'))
}

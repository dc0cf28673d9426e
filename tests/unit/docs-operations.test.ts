// docs/operations.md says what the code says: reasons, exit codes, metrics; ARCHITECTURE.md lists the folders that are there.

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { EXIT } from '../../crds/contract.ts'

const root = join(import.meta.dirname, '..', '..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const page = read('docs/operations.md')

/** First cells of the table below a heading. */
function firstCells(heading: string, column = 0): string[] {
  const section = page.split(`## ${heading}\n`)[1]?.split('\n## ')[0] ?? ''
  return section
    .split('\n')
    .filter(line => /^\| (?!---)/.test(line))
    .map(line => line.split('|')[column + 1]?.trim().replaceAll('`', '') ?? '')
    .filter(cell => !['Reason', 'Code', 'Metric', 'Name', 'Alert'].includes(cell))
}

const matches = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map(match => match[1] ?? '')

describe('docs/operations.md', () => {
  it('has every reason that the operator gives a state, and no other', () => {
    const sources = ['policies.ts', 'status.ts', 'apply.ts'].map(file => read(`operator/${file}`)).join('\n')
    const given = matches(sources, /(?:reason: |reason = \S+ === '\w+' \? '\w+' : |Stalled\(\s*)'([A-Z]\w+)'/g)
    const documented = firstCells('Reasons')
    for (const reason of given) expect(documented, `reason ${reason}`).toContain(reason)
    const code = readdirSync(join(root, 'operator'))
      .map(file => read(`operator/${file}`))
      .join('\n')
    for (const reason of documented) expect(code, `reason ${reason}`).toContain(`'${reason}'`)
    expect(given.length).toBeGreaterThan(8)
  })

  it('has every exit code with its name and what follows', () => {
    const rows = Object.entries(EXIT).map(([name, { code, permanent, meaning }]) => {
      const then = code === 0 ? '-' : permanent ? 'fails the job' : 'restarts the gang'
      return `| ${code} | ${name} | ${meaning} | ${then} |`
    })
    for (const row of rows) expect(page).toContain(row)
    expect(firstCells('Exit codes of a worker')).toHaveLength(rows.length)
  })

  it('has every metric of operator and worker, and no other', () => {
    const names = ['operator/telemetry.ts', 'worker/metrics.ts'].flatMap(file =>
      matches(read(file), /(?:counter|gauge|histogram|name:)[\s(]*'([a-z]+_[a-z_]+)'/g),
    )
    expect(firstCells('Metrics').toSorted()).toEqual(names.toSorted())
  })

  it('has every alert of the chart, and no other', () => {
    const names = matches(read('charts/scmoe/monitoring/alerts.yaml'), /- alert: (\w+)/g)
    expect(firstCells('Alerts')).toEqual(names)
    expect(names.length).toBeGreaterThan(8)
  })
})

describe('ARCHITECTURE.md', () => {
  it('lists the folders that are there', () => {
    const tree = read('ARCHITECTURE.md').split('## Folders')[1]?.split('\n## ')[0] ?? ''
    const listed = matches(tree, /^ {4}(\w+)\/ /gm)
    const ignored = new Set(['node_modules', 'build', 'dist', 'coverage', 'scmoe-out'])
    const there = readdirSync(root).filter(
      name => !name.startsWith('.') && !ignored.has(name) && statSync(join(root, name)).isDirectory(),
    )
    expect(listed.toSorted()).toEqual(there.toSorted())
    const files = tree.matchAll(/^ {4}(\w+)\/ [^\n]*\n((?: {6}\S[^\n]*\n)*)/gm)
    for (const [, folder = '', lines = ''] of files) {
      for (const name of matches(lines, /^ {6}(\S+)/gm))
        expect(existsSync(join(root, folder, name)), `${folder}/${name}`).toBe(true)
    }
  })
})

// docs/operations.md names the reasons, exit codes and metrics of the code, and ARCHITECTURE.md
// lists the folders that exist.

import { existsSync, globSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FAILURES, REASONS } from '../../../crds/advice.ts'
import { EXIT } from '../../../crds/contract.ts'
import { jobSchema, schemaAt } from '../../../crds/definition/definition.ts'
import { ConditionType } from '../../../crds/status.ts'

const root = join(import.meta.dirname, '../../..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const page = read('docs/operations.md')

/** First cells of the table below a heading. */
function firstCells(heading: string, column = 0): string[] {
  const section = page.split(`## ${heading}\n`)[1]?.split('\n## ')[0] ?? ''
  return section
    .split('\n')
    .filter(line => /^\| (?!---)/.test(line))
    .map(line => line.split('|')[column + 1]?.trim().replaceAll('`', '') ?? '')
    .filter(cell => !['Reason', 'Code', 'Metric', 'Condition', 'Alert'].includes(cell))
}

const matches = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map(match => match[1] ?? '')

describe('docs/operations.md', () => {
  it('has every reason that the operator gives a state, and no other', () => {
    const files = [
      'plan/policies.ts',
      'objects/providers.ts',
      'plan/deadlines.ts',
      'plan/queueing.ts',
      'plan/failure.ts',
      'plan/cleanup.ts',
      'plan/trouble.ts',
      'plan/status.ts',
      'plan/refusal.ts',
      'objects/pod-state.ts',
    ]
    const sources = files.map(file => read(`operator/${file}`)).join('\n')
    const given = matches(sources, /(?:reason: |reason = \S+ === '\w+' \? '\w+' : )'([A-Z]\w+)'/g)
    const known = Object.keys(REASONS)
    for (const reason of given) expect(known, `reason ${reason}: a line in crds/advice.ts`).toContain(reason)
    const code = globSync('operator/**/*.ts', { cwd: root }).map(read).join('\n')
    for (const reason of known) expect(code, `reason ${reason}`).toContain(`'${reason}'`)
    expect(given.length).toBeGreaterThan(8)
    expect(firstCells('Reasons')).toEqual(known)
  })

  it('has every reason of a failure that the operator makes up itself', () => {
    const made = matches(read('operator/objects/pod-end.ts'), /\d+: '(SIG[A-Z]+)'/g)
    for (const reason of [...made, 'OOMKilled', 'PodDeleted']) expect(Object.keys(FAILURES)).toContain(reason)
    expect(made.length).toBeGreaterThan(4)
    expect(firstCells('Reasons of a failure')).toEqual(Object.keys(FAILURES))
  })

  it('has every condition, exit code and state of a reason as the code has them', () => {
    expect(firstCells('Conditions').toSorted()).toEqual([...ConditionType.options].toSorted())
    const codes = Object.values(EXIT).map(({ code }) => String(code))
    expect(firstCells('Exit codes of a worker')).toEqual(codes)
  })

  it('has the defaults that the schema has', () => {
    const section = page.split('## How long things may take\n')[1]?.split('\n## ')[0] ?? ''
    const rows = [...section.matchAll(/^\| `([\w.]+)` \| (\d+|-) \|/gm)].map(([, path = '', value = '']) => [
      path,
      value,
    ])
    expect(rows.length).toBeGreaterThan(5)
    const schema = jobSchema()
    const found = rows.map(([path = '']) => [path, JSON.stringify(schemaAt(schema, `spec.${path}`).default) ?? '-'])
    expect(rows).toEqual(found)
  })

  it('has every metric of operator and worker, and no other', () => {
    const names = ['operator/telemetry.ts', 'worker/report/metrics.ts'].flatMap(file =>
      matches(read(file), /(?:counter|gauge|histogram|name:)[\s(]*'([a-z]+_[a-z_]+)'/g),
    )
    expect(firstCells('Metrics').toSorted()).toEqual(names.toSorted())
    const section = page.split('## Metrics\n')[1]?.split('\n## ')[0] ?? ''
    expect(matches(section, /^(\| `\w+` \| [^|]+ \| [^|]+ \|)$/gm), 'each with when to look').toHaveLength(names.length)
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

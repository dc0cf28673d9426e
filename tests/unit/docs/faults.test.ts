// docs/faults.md names a test for every fault, and each of them is there.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const root = join(import.meta.dirname, '../../..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const rows = read('docs/faults.md')
  .split('\n')
  .filter(line => line.startsWith('| ') && !/^\| (---|Fault )/.test(line))
  .map(line => line.split('|').at(-2)?.trim() ?? '')

it('docs/faults.md has a test in each row, by its name', () => {
  expect(rows.length).toBeGreaterThan(20)
  const missing = rows.filter(row => {
    const [, file = '', name = ''] = /^(\S+\.test\.ts)(?:: (.+))?$/.exec(row) ?? []
    return file === '' || !existsSync(join(root, file)) || !read(file).includes(name)
  })
  expect(missing).toEqual([])
})
